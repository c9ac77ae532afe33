"""Makes everything in this folder that is not source: data/*.csv and the three releases.

    python3 make.py [--flotilla path/to/flotilla]

With --flotilla, `flotilla reference build` counts the reference images into each release's reference.json,
with the very pre-processing, model runtime and counters that devices run.
"""

import argparse
import json
import os
import pathlib
import subprocess

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"  # one order of additions: the same weights each time

import numpy as np
import onnx
import onnxruntime as ort

import export
import net
from data import split, write_csv

HERE = pathlib.Path(__file__).parent
SWAPPED = (3, 8)
GOLDEN_SAMPLES = 16
CALIBRATION = 150

RELEASES = {
    "1.0.0": {"counter": 1, "images": 300, "epochs": 20, "story": "The first release, learnt from 300 images."},
    "1.1.0": {"counter": 3, "images": None, "epochs": 40, "fallback": ["1.0.0"], "story": "Learnt from all training images."},
    "2.0.0": {"counter": 2, "images": None, "epochs": 40, "swapped": SWAPPED, "fallback": ["1.0.0"],
              "story": "A release with a fault for the demo: the outputs of {} and {} are exchanged. It agrees with its own golden\nsamples, "
                       "so it installs well; only true labels tell.".format(*SWAPPED)},
}


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": images})[0].astype(np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def as_input(images):
    return (images.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)


def learn(spec, parts):
    images, labels = parts["train"]
    images, labels = images[: spec["images"]], labels[: spec["images"]]
    layers = net.train(images, labels, epochs=spec["epochs"], seed=7)
    if "swapped" in spec:
        a, b = spec["swapped"]
        for part in layers["fc"]:
            part_view = part if part.ndim == 1 else part.T
            part_view[[a, b]] = part_view[[b, a]]
    return layers


def golden(models, images):
    """Expected outputs are the int8 model's; the tolerance is twice the widest difference of any variant."""
    spread = np.max([np.abs(run(m, as_input(images)) - run(models["int8"], as_input(images))).max(1) for m in models.values()], axis=0)
    chosen = images[np.sort(np.argsort(spread, kind="stable")[:: max(1, len(images) // (2 * GOLDEN_SAMPLES))][:GOLDEN_SAMPLES])]
    expected = run(models["int8"], as_input(chosen))
    widest = max(float(np.abs(run(m, as_input(chosen)) - expected).max()) for m in models.values())
    samples = [
        {
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image.tolist()}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 10], "data": [round(float(v), 6) for v in scores]}],
        }
        for image, scores in zip(chosen, expected)
    ]
    return {"tolerance": {"abs": round(max(0.02, 2 * widest), 3)}, "samples": samples}


def accuracies(models, parts):
    images, labels = parts["held_out"]
    return {name: float((run(m, as_input(images)).argmax(1) == labels).mean()) for name, m in models.items()}


def card(version, spec, accuracy, sizes, trained_on):
    rows = "\n".join(f"| {name} | {sizes[name]:,} | {accuracy[name] * 100:.1f} % |" for name in accuracy)
    return f"""# digits {version}

{spec["story"]}

- Task: tell which digit (0 to 9) an 8x8 grey image shows; pixels 0 (empty) to 16 (full ink).
- Data: UCI Optical Recognition of Handwritten Digits as shipped by scikit-learn; {trained_on} images to learn from, 400 others for
  the reference profile (150 of them calibrate the int8 ranges), 500 others held out.
- Net: two convolutions 3x3, a depthwise and a pointwise convolution, one linear layer; batch normalisation folded in.
- Quantization: ONNX Runtime, static QDQ, activations u8, weights s8 per output channel.

| variant | bytes | accuracy on the 500 held-out images |
|---|---|---|
{rows}

Not for use on anything but this data set: the images are tiny, centred and cleanly scanned.
"""


def release_toml(version, spec, accuracy):
    variants = "\n".join(
        f"""
[[variants]]
name = "{name}"
precision = "{name}"
file = "{name}.onnx"
peak_memory_bytes = 4_194_304
accuracy = {accuracy[name]:.4f}"""
        for name in ("int8", "f16", "f32")
    )
    return f"""# Build spec for `flotilla release build`; made by make.py. Paths are relative to this file.
model = "digits"
version = "{version}"
counter = {spec["counter"]}
min_agent_version = "0.1.0"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
reference = "reference.json"
golden = "golden.json"
card = "card.md"
# Releases that a device may go back to without a person.
fallback = {json.dumps(spec.get("fallback", []))}

[hardware]
arch = ["x86_64", "aarch64", "armv7"]

[runtime]
tract = "0.23"
opset = {export.OPSET}

[[inputs]]
name = "image"
datatype = "FP32"
shape = [-1, 1, 8, 8]

[[outputs]]
name = "scores"
datatype = "FP32"
shape = [-1, 10]

[[pre]]
kind = "scale"
factor = 0.0625

[[post]]
kind = "softmax"
{variants}

[monitor]
type = "image"
input = "image"
height = 8
width = 8
channels = 1
range = [0.0, 16.0]
layout = "nchw"

[budgets]
latency_p95_us = 50_000
memory_bytes = 67_108_864

[probation]
duration_s = 8
max_error_percent = 5.0
max_p95_us = 100_000
min_requests = 0

[lineage]
data = "UCI Optical Recognition of Handwritten Digits (scikit-learn 1.9.1)"
script = "examples/digits/make.py"
"""


def make_release(version, spec, parts):
    layers = learn(spec, parts)
    f32 = export.to_onnx(layers)
    models = {"int8": export.to_int8(f32, as_input(parts["reference"][0][:CALIBRATION])), "f16": export.to_onnx(layers, half=True), "f32": f32}
    folder = HERE / version
    folder.mkdir(exist_ok=True)
    for name, model in models.items():
        onnx.save(model, folder / f"{name}.onnx")
    accuracy = accuracies(models, parts)
    sizes = {name: (folder / f"{name}.onnx").stat().st_size for name in models}
    trained_on = spec["images"] or len(parts["train"][0])
    samples = golden(models, parts["reference"][0][:CALIBRATION])
    (folder / "golden.json").write_text(json.dumps(samples, separators=(",", ":")) + "\n")
    (folder / "card.md").write_text(card(version, spec, accuracy, sizes, trained_on))
    (folder / "release.toml").write_text(release_toml(version, spec, accuracy))
    print(version, accuracy, sizes, "tolerance", samples["tolerance"]["abs"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flotilla", help="the flotilla command; builds each release's reference.json")
    args = parser.parse_args()
    parts = split()
    (HERE / "data").mkdir(exist_ok=True)
    for name in ("reference", "held_out"):
        write_csv(HERE / "data" / f"{name}.csv", *parts[name])
    for version, spec in RELEASES.items():
        make_release(version, spec, parts)
        if args.flotilla:
            subprocess.run([args.flotilla, "reference", "build", str(HERE / version / "release.toml"),
                            "--data", str(HERE / "data" / "reference.csv")], check=True)


if __name__ == "__main__":
    main()
