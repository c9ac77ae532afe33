"""A small convolutional net in JAX, with batch normalisation that folds into the convolutions.

conv 3x3 1->16, conv 3x3 16->32, max pool, depthwise 3x3 32, pointwise 32->32, linear 512->10.
Each convolution is followed by batch normalisation and ReLU. Pixels arrive as 0..1.
"""

import jax
import jax.numpy as jnp
import numpy as np

# name, output channels, input channels, kernel, groups
CONVS = [
    ("conv1", 16, 1, 3, 1),
    ("conv2", 32, 16, 3, 1),
    ("dw3", 32, 32, 3, 32),
    ("pw3", 32, 32, 1, 1),
]
POOL_AFTER = "conv2"
EPSILON = 1e-5


def init(seed):
    rng = np.random.default_rng(seed)
    params, running = {}, {}
    for name, out, inp, k, groups in CONVS:
        fan_in = inp // groups * k * k
        params[name] = {
            "w": rng.normal(0, np.sqrt(2 / fan_in), (out, inp // groups, k, k)).astype(np.float32),
            "gamma": np.ones(out, np.float32),
            "beta": np.zeros(out, np.float32),
        }
        running[name] = {"mean": np.zeros(out, np.float32), "var": np.ones(out, np.float32)}
    params["fc"] = {"w": rng.normal(0, np.sqrt(1 / 512), (512, 10)).astype(np.float32), "b": np.zeros(10, np.float32)}
    return params, running


def _forward(params, images):
    """Training pass on batch statistics -> logits, {conv: (mean, var)}."""
    x, seen = images, {}
    for name, _, _, k, groups in CONVS:
        p = params[name]
        x = jax.lax.conv_general_dilated(x, p["w"], (1, 1), [(k // 2, k // 2)] * 2, feature_group_count=groups)
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        seen[name] = (mean, var)
        scale = p["gamma"] / jnp.sqrt(var + EPSILON)
        x = (x - mean[:, None, None]) * scale[:, None, None] + p["beta"][:, None, None]
        x = jax.nn.relu(x)
        if name == POOL_AFTER:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.reshape(x.shape[0], -1) @ params["fc"]["w"] + params["fc"]["b"], seen


def _loss(params, images, targets):
    logits, seen = _forward(params, images)
    return -(targets * jax.nn.log_softmax(logits)).sum(1).mean(), seen


@jax.jit
def _step(params, moments, step, images, targets, rate):
    (loss, seen), grads = jax.value_and_grad(_loss, has_aux=True)(params, images, targets)
    first, second = moments
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
    corr1, corr2 = 1 - 0.9**step, 1 - 0.999**step
    params = jax.tree.map(
        lambda p, m, v: p - rate * ((m / corr1) / (jnp.sqrt(v / corr2) + 1e-8) + 1e-4 * p), params, first, second
    )
    return params, (first, second), loss, seen


def train(images, labels, *, epochs, seed, smoothing=0.05, batch=32):
    """Adam with a cosine rate -> {layer: (w, b)} with batch normalisation folded in."""
    images = (images.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[labels] * (1 - smoothing) + smoothing / 10
    rng = np.random.default_rng(seed)
    params, running = init(seed)
    moments = (jax.tree.map(np.zeros_like, params), jax.tree.map(np.zeros_like, params))
    batches = max(1, len(images) // batch)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for part in np.array_split(order, batches):
            step += 1
            rate = 0.004 * 0.5 * (1 + np.cos(np.pi * step / (epochs * batches + 1)))
            params, moments, _, seen = _step(params, moments, float(step), images[part], targets[part], rate)
            for name, (mean, var) in seen.items():
                running[name]["mean"] = 0.95 * running[name]["mean"] + 0.05 * np.asarray(mean)
                running[name]["var"] = 0.95 * running[name]["var"] + 0.05 * np.asarray(var)
    return _fold(params, running)


def _fold(params, running):
    layers = {}
    for name, *_ in CONVS:
        p, r = params[name], running[name]
        scale = np.asarray(p["gamma"]) / np.sqrt(r["var"] + EPSILON)
        w = np.asarray(p["w"]) * scale[:, None, None, None]
        b = np.asarray(p["beta"]) - r["mean"] * scale
        layers[name] = (w.astype(np.float32), b.astype(np.float32))
    layers["fc"] = (np.array(params["fc"]["w"]), np.array(params["fc"]["b"]))
    return layers
