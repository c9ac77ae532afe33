"""Pairs of models as updates bring them, for `cargo xtask bench delta`: FOLDER/<pair>/{old,new}.onnx.

A dense net (64-512-512-10, 300 k weights) learns the digits of scikit-learn. Each new model is what a team would
ship next: trained further on more images (all layers, or the last one only), in f32, f16 and int8; quantized again
with other ranges; or trained from another beginning.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

SIZES = [64, 512, 512, 10]


def begin(seed):
    rng = np.random.default_rng(seed)
    shapes = list(zip(SIZES, SIZES[1:]))
    return [(rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32), np.zeros(b, np.float32)) for a, b in shapes]


def train(layers, images, labels, epochs, rate, seed, first=0):
    """Plain stochastic gradient descent; layers before `first` stay as they are."""
    layers = [(w.copy(), b.copy()) for w, b in layers]
    rng = np.random.default_rng(seed)
    targets = np.eye(10, dtype=np.float32)[labels]
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(images)), len(images) // 32):
            seen = [images[batch]]
            for at, (w, b) in enumerate(layers):
                x = seen[-1] @ w + b
                seen.append(np.maximum(x, 0) if at < 2 else x)
            odds = np.exp(seen[-1] - seen[-1].max(1, keepdims=True))
            slope = (odds / odds.sum(1, keepdims=True) - targets[batch]) / len(batch)
            for at in reversed(range(3)):
                w, b = layers[at]
                back = slope @ w.T * (seen[at] > 0)
                if at >= first:
                    layers[at] = (w - np.float32(rate) * (seen[at].T @ slope), b - np.float32(rate) * slope.sum(0))
                slope = back
    return layers


def accuracy(layers, images, labels):
    x = images
    for at, (w, b) in enumerate(layers):
        x = x @ w + b
        x = np.maximum(x, 0) if at < 2 else x
    return (x.argmax(1) == labels).mean()


def save(layers, path, kind, ranges=1.0):
    """Weights as they are, halved, or in int8 with one scale for each output; `ranges` narrows the scales."""
    nodes, tensors, last = [], [], "image"
    add = lambda name, array: tensors.append(numpy_helper.from_array(array, name)) or name
    wide = TensorProto.FLOAT16 if kind == "f16" else TensorProto.FLOAT
    plain = np.float16 if kind == "f16" else np.float32
    for at, (w, b) in enumerate(layers):
        if kind == "int8":
            scale = (np.abs(w).max(0) * ranges / 127).astype(np.float32)
            small = np.clip(np.round(w / scale), -127, 127).astype(np.int8)
            ins = [add(f"w{at}", small), add(f"s{at}", scale), add(f"z{at}", np.zeros(len(scale), np.int8))]
            nodes.append(helper.make_node("DequantizeLinear", ins, [f"d{at}"], axis=1))
            weight = f"d{at}"
        else:
            weight = add(f"w{at}", w.astype(plain))
        nodes.append(helper.make_node("Gemm", [last, weight, add(f"b{at}", b.astype(plain))], [f"g{at}"]))
        last = f"g{at}"
        if at < 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{at}"]))
            last = f"r{at}"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", wide, [1, 64])],
        [helper.make_tensor_value_info(last, wide, [1, 10])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="bench")
    model.ir_version = 8
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def main():
    folder = pathlib.Path(sys.argv[1])
    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target
    train_set, held_out = slice(0, 1300), slice(1300, None)
    old = train(begin(1), images[:900], labels[:900], 15, 0.1, 2)
    tuned = train(old, images[train_set], labels[train_set], 2, 0.01, 3)
    head = train(old, images[train_set], labels[train_set], 4, 0.05, 4, first=2)
    other = train(begin(5), images[:900], labels[:900], 15, 0.1, 6)
    for name, layers in [("old", old), ("tuned", tuned), ("head", head), ("other", other)]:
        print(f"{name}: {accuracy(layers, images[held_out], labels[held_out]):.3f} right", file=sys.stderr)
    pairs = {
        "fine-tuned-f32": (old, tuned, "f32", 1.0),
        "fine-tuned-f16": (old, tuned, "f16", 1.0),
        "fine-tuned-int8": (old, tuned, "int8", 1.0),
        "last-layer-f32": (old, head, "f32", 1.0),
        "requantized-int8": (old, old, "int8", 0.9),
        "unrelated-f32": (old, other, "f32", 1.0),
        "unrelated-int8": (old, other, "int8", 1.0),
    }
    for name, (before, after, kind, ranges) in pairs.items():
        save(before, folder / name / "old.onnx", kind)
        save(after, folder / name / "new.onnx", kind, ranges)


main()
