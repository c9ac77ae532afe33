"""Times models whose layers end in f32, ours against ONNX Runtime: dynamic quantization, and a head without a QuantizeLinear.

    python3 dynamic.py FOLDER RUNNER [--rounds 15] [--only ffn.dynamic_s8,head.int8]

FOLDER holds what make.py makes of conv1d, mlp and mobilenet_v2 (`cargo xtask bench int8` keeps it in the user's cache
folder); RUNNER is target/release/examples/bench-engine (`cargo build --release --locked --package inference --example
bench-engine`). Each engine has a process, one thread and the same core; they take turns, and medians of CPU time
count. The last column is the largest difference of our outputs from ONNX Runtime's, against the largest output.
"""

import argparse
import json
import logging
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

ENGINE = pathlib.Path(__file__).with_name("engine.py")
MADE = ["conv1d", "mlp", "mobilenet_v2"]


def model(nodes, constants, shapes):
    constants = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    (given, shape), (made, to) = shapes
    value = lambda name, shape: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [value(given, shape)], [value(made, to)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feed_forward(random):
    """Of a transformer: 128 places, 256 wide, 1024 between."""
    places, width, inner = 128, 256, 1024
    normal = lambda scale, *shape: random.normal(0, scale, shape).astype(np.float32)
    constants = {"w1": normal(.05, width, inner), "b1": normal(.1, inner), "w2": normal(.03, inner, width), "b2": normal(.1, width)}
    steps = [("MatMul", ["input", "w1"], "a"), ("Add", ["a", "b1"], "b"), ("Relu", ["b"], "c"), ("MatMul", ["c", "w2"], "d"), ("Add", ["d", "b2"], "output")]
    nodes = [helper.make_node(op, given, [made], name=made) for op, given, made in steps]
    shape = [1, places, width]
    return model(nodes, constants, [("input", shape), ("output", shape)]), normal(1, 4, *shape)


def head(random):
    """A 3x3 convolution and a 1x1 of 21 classes that nothing quantizes again, over 256x256 pixels."""
    weights = lambda *shape: random.integers(-127, 128, shape).astype(np.int8)
    constants = {
        "s": np.float32(.02), "z": np.uint8(128), "t": np.float32(.05), "u": np.float32(.004), "v": np.int8(0),
        "w1": weights(32, 32, 3, 3), "w2": weights(21, 32, 1, 1),
    }
    steps = [
        ("QuantizeLinear", ["input", "s", "z"], "q"), ("DequantizeLinear", ["q", "s", "z"], "d"),
        ("DequantizeLinear", ["w1", "u", "v"], "d1"), ("Conv", ["d", "d1"], "y"),
        ("QuantizeLinear", ["y", "t", "z"], "yq"), ("DequantizeLinear", ["yq", "t", "z"], "yd"),
        ("DequantizeLinear", ["w2", "u", "v"], "d2"), ("Conv", ["yd", "d2"], "output"),
    ]
    nodes = [helper.make_node(op, given, [made], name=made) for op, given, made in steps]
    nodes[3].attribute.append(helper.make_attribute("pads", [1] * 4))
    rows = random.normal(0, 1, (1, 1, 32, 256, 256)).astype(np.float32)
    return model(nodes, constants, [("input", [1, 32, 256, 256]), ("output", [1, 21, 256, 256])]), rows


def make(source, folder):
    """Fills a folder; returns each net's variants."""
    random, index = np.random.default_rng(1), json.loads((source / "models.json").read_text())
    index = {net: index[net] for net in MADE}
    for net in MADE:
        for name in [f"{net}.f32.onnx", index[net]["rows_file"]]:
            (folder / name).symlink_to((source / name).resolve())
    for net, variant, (made, rows) in [("ffn", "f32", feed_forward(random)), ("head", "int8", head(random))]:
        onnx.save(made, folder / f"{net}.{variant}.onnx")
        rows.astype("<f4").tofile(folder / f"{net}.input.f32")
        shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in [made.graph.input[0], made.graph.output[0]]]
        index[net] = {
            "input": "input", "input_shape": shapes[0], "output": "output", "output_shape": shapes[1],
            "rows": len(rows), "rows_file": f"{net}.input.f32",
        }
    variants = {net: ["f32"] for net in [*MADE, "ffn"]} | {"head": ["int8"]}
    for net in [*MADE, "ffn"]:
        for name, kind in [("dynamic_s8", QuantType.QInt8), ("dynamic_u8", QuantType.QUInt8)]:
            quantize_dynamic(str(folder / f"{net}.f32.onnx"), str(folder / f"{net}.{name}.onnx"), weight_type=kind)
            variants[net].append(name)
    for net, names in variants.items():
        index[net]["variants"] = {name: {"file": f"{net}.{name}.onnx", "bytes": (folder / f"{net}.{name}.onnx").stat().st_size} for name in names}
    (folder / "models.json").write_text(json.dumps(index))
    return variants


class Engine:
    def __init__(self, command, core):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(["taskset", "-c", core, *command], stdin=pipe, stdout=pipe, text=True)
        self.times = []
        self.ask("load")

    def ask(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def measure(folder, runner, net, variant, rounds):
    core = str(max(os.sched_getaffinity(0)))
    names = [str(folder), net, variant]
    engines = [Engine([runner, "ours", *names], core), Engine([sys.executable, str(ENGINE), "onnxruntime", *names], core)]
    for _ in range(rounds):
        for engine in engines:
            engine.times.append(statistics.median(engine.ask("run 11")["cpu_ms"]))
    ours, theirs = (np.array(engine.ask("outputs")["outputs"], dtype=np.float64).ravel() for engine in engines)
    for engine in engines:
        engine.process.stdin.close()
        engine.process.wait()
    off = np.abs(ours - theirs).max() / np.abs(theirs).max()
    return [statistics.median(engine.times) for engine in engines], off


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("runner")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", help="NET.VARIANT,..")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as made:
        variants = make(args.folder, pathlib.Path(made))
        wanted = [f"{net}.{variant}" for net, names in variants.items() for variant in names]
        print("model", "ours ms", "ONNX Runtime ms", "ours / theirs", "off", sep="\t")
        for name in args.only.split(",") if args.only else wanted:
            (ours, theirs), off = measure(pathlib.Path(made), args.runner, *name.split("."), args.rounds)
            print(name, f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}", f"{off:.1e}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
