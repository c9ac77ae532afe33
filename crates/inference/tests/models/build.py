"""A graph of ONNX nodes that is written down one after the other, quantized or not."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CONTRIB, ML = "com.microsoft", "ai.onnx.ml"
ML_OPS = {"Scaler", "TreeEnsembleClassifier"}
CONTRIB_OPS = {
    "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearLeakyRelu",
    "QLinearSigmoid", "QLinearSoftmax", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "NhwcMaxPool",
    "ContribQLinearConv",
}  # fmt: skip


class Graph:
    """Tensors are names; `op` adds a node and gives the name of what it makes."""

    def __init__(self, seed, opset=17):
        self.opset, self.nodes, self.constants, self.count = opset, [], [], 0
        self.random = np.random.default_rng(seed)
        self.more, self.whole_from = None, None

    def name(self, stem):
        self.count += 1
        return f"{stem}_{self.count}"

    def constant(self, values, stem="c"):
        self.constants.append(numpy_helper.from_array(np.asarray(values), self.name(stem)))
        return self.constants[-1].name

    def op(self, kind, inputs, outputs=1, **attributes):
        made = [self.name(kind.lower()) for _ in range(outputs)]
        domain = CONTRIB if kind in CONTRIB_OPS else ML if kind in ML_OPS else ""
        kind = kind.removeprefix("Contrib")  # ONNX has an operator of that name too
        self.nodes.append(helper.make_node(kind, inputs, made, name=self.name("node"), domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def second_input(self, *shape):
        """An input that a request brings once, however many rows it has."""
        self.more = shape
        return "more"

    def ids(self, first):
        """The input in whole numbers, so many from `first` on: those count from 0. Zeros, which a loaded model is warmed
        up by, count as the first."""
        self.whole_from = first
        return self.op("Max", [self.op("Sub", ["input", self.constant(np.int64(first))]), self.constant(np.int64(0))])

    def params(self, scale, zero, kind=np.uint8):
        return [self.constant(np.float32(scale), "scale"), self.constant(kind(zero), "zero")]

    def quantize(self, value, params):
        return self.op("QuantizeLinear", [value, *params])

    def dequantize(self, value, params):
        return self.op("DequantizeLinear", [value, *params])

    def qdq(self, value, params):
        return self.dequantize(self.quantize(value, params), params)

    def floats(self, *shape):
        return self.random.uniform(-1, 1, shape).astype(np.float32)

    def integers(self, kind, *shape):
        range_ = np.iinfo(kind)
        return self.random.integers(range_.min, range_.max + 1, shape).astype(kind)

    def weights(self, *shape, kind=np.int8, scales=1, axis=0):
        """Quantized weights with scale and zero point, of the whole or of each place along an axis."""
        scale = self.random.uniform(0.002, 0.006, scales).astype(np.float32)
        zero = np.zeros(scales, kind) if kind == np.int8 else self.random.integers(110, 140, scales).astype(kind)
        if scales == 1:
            scale, zero = scale[0], zero[0]
        self.weight_scale = scale
        return [self.constant(self.integers(kind, *shape), "w"), self.constant(scale, "ws"), self.constant(zero, "wz")]

    def dequantized_weights(self, *shape, axis=0, **more):
        """The same under a DequantizeLinear."""
        weights = self.weights(*shape, **more)
        along = {"axis": axis} if self.opset >= 13 and more.get("scales", 1) != 1 else {}
        return self.op("DequantizeLinear", weights, **along)

    def bias(self, count, in_scale, dequantized=False):
        """In f32, or in i32 under a DequantizeLinear (before opset 11 ONNX Runtime can't quantize the former)."""
        if not dequantized and self.opset > 10:
            return self.constant(self.floats(count), "b")
        values = self.constant(self.random.integers(-9000, 9000, count).astype(np.int32), "b")
        scale = (np.float32(in_scale) * self.weight_scale).astype(np.float32)
        zero = np.zeros(scale.shape, np.int32)
        along = {"axis": 0} if scale.shape else {}
        return self.op("DequantizeLinear", [values, self.constant(scale, "scale"), self.constant(zero, "zero")], **along)

    def model(self, shape, output):
        """[N, shape..] of f32 to the named tensor."""
        info = helper.make_tensor_value_info
        last = helper.make_node("Identity", [output], ["output"], name="last")
        kind = TensorProto.FLOAT if self.whole_from is None else TensorProto.INT64
        inputs = [info("input", kind, ["N", *shape])]
        if self.more:
            inputs.append(info("more", TensorProto.FLOAT, self.more))
        graph = helper.make_graph(
            [*self.nodes, last], "small", inputs,
            [info("output", TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        sets = [helper.make_opsetid("", self.opset), helper.make_opsetid(CONTRIB, 1)]
        if any(node.domain == ML for node in self.nodes):
            sets.append(helper.make_opsetid(ML, 3))
        made = helper.make_model(graph, opset_imports=sets, producer_name="flotilla-tests")
        made.ir_version = 7 if self.opset < 17 else 8 if self.opset < 19 else 10
        return made
