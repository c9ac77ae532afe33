"""Times EfficientNet-B0 as NNCF quantizes it, ours against ONNX Runtime: SiLU behind each convolution, a scale for each
channel in front of depthwise ones, squeeze-and-excitation blocks that stay in f32.

    pip install -r requirements-nncf.txt
    python3 efficientnet.py RUNNER [--rounds 15]

Weights are random; RUNNER is as in dynamic.py, and so are the columns.
"""

import argparse
import json
import pathlib
import tempfile

import nncf
import numpy as np
import onnx
from onnx import helper, numpy_helper

from dynamic import measure

# Widening, channels, layers, stride of the first one, window (Tan and Le, "EfficientNet", 2019, table 1).
STAGES = [
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
]  # fmt: skip
INPUT = [1, 3, 224, 224]


class Net:
    def __init__(self, random):
        self.random, self.nodes, self.constants = random, [], []

    def constant(self, scale, *shape):
        name = f"c{len(self.constants)}"
        values = self.random.normal(0, scale, shape).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def op(self, kind, *inputs, made=None, **more):
        made = made or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=f"{kind}_{made}", **more))
        return made

    def conv(self, value, channels, to, window=1, stride=1, group=1):
        weights = self.constant((2 * group / channels / window**2) ** 0.5, to, channels // group, window, window)
        more = {"kernel_shape": [window] * 2, "strides": [stride] * 2, "pads": [window // 2] * 4, "group": group}
        return self.op("Conv", value, weights, self.constant(0.1, to), **more)

    def silu(self, value):
        return self.op("Mul", value, self.op("Sigmoid", value))

    def block(self, value, channels, to, widening, stride, window):
        wide, made, between = channels * widening, value, max(8, channels // 4)
        if widening > 1:
            made = self.silu(self.conv(made, channels, wide))
        made = self.silu(self.conv(made, wide, wide, window, stride, wide))
        gate = self.silu(self.conv(self.op("GlobalAveragePool", made), wide, between))
        gate = self.op("Sigmoid", self.conv(gate, between, wide))
        made = self.conv(self.op("Mul", made, gate), wide, to)
        return self.op("Add", made, value) if stride == 1 and channels == to else made

    def model(self):
        channels, value = 32, self.silu(self.conv("input", 3, 32, 3, 2))
        for widening, to, layers, stride, window in STAGES:
            for layer in range(layers):
                value = self.block(value, channels, to, widening, 1 if layer else stride, window)
                channels = to
        value = self.op("GlobalAveragePool", self.silu(self.conv(value, channels, 1280)))
        self.op("Gemm", self.op("Flatten", value), self.constant(0.03, 1280, 1000), made="output")
        value = lambda name, shape: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "g", [value("input", INPUT)], [value("output", [1, 1000])], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def make(folder):
    random = np.random.default_rng(1)
    net, rows = Net(random).model(), [random.normal(0, 1, INPUT).astype(np.float32) for _ in range(8)]
    quantized = nncf.quantize(net, nncf.Dataset(rows, lambda row: {"input": row}), subset_size=len(rows))
    rows[0].astype("<f4").tofile(folder / "rows.f32")
    variants = {}
    for name, made in [("f32", net), ("int8", quantized)]:
        onnx.save(made, folder / f"{name}.onnx")
        variants[name] = {"file": f"{name}.onnx", "bytes": (folder / f"{name}.onnx").stat().st_size}
    shapes = {"input": "input", "input_shape": INPUT, "output": "output", "output_shape": [1, 1000], "rows": 1}
    (folder / "models.json").write_text(json.dumps({"net": shapes | {"rows_file": "rows.f32", "variants": variants}}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runner")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(pathlib.Path(folder))
        print("variant", "ours ms", "ONNX Runtime ms", "ours / theirs", "off", sep="\t")
        for variant in ["int8", "f32"]:
            (ours, theirs), off = measure(pathlib.Path(folder), args.runner, "net", variant, args.rounds)
            print(variant, f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}", f"{off:.1e}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
