"""The five nets, as they are known from their papers, with seeded random weights.

Each convolution is followed by batch normalisation whose statistics are taken from the data while the net is built,
and folded into the weights: so activations keep a healthy range through the whole depth, as in a trained net,
and differ from channel to channel, as quantization per channel wants it.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Builder:
    """Adds node after node and runs each at once on the data, to know what the next one will see."""

    def __init__(self, name, data, seed):
        self.name, self.rng = name, np.random.default_rng(seed)
        self.nodes, self.initializers = [], []
        self.values = {"input": data}
        self.macs, self.parameters, self.count = 0, 0, 0

    def constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(values, name))
        self.parameters += values.size
        return name

    def node(self, op, inputs, **attributes):
        self.count += 1
        name = f"{op.lower()}_{self.count}"
        node = helper.make_node(op, inputs, [name + "_out"], name=name, **attributes)
        self.nodes.append(node)
        self.values[name + "_out"] = self._run(node)
        return name + "_out"

    def _run(self, node):
        constants = [t for t in self.initializers if t.name in node.input]
        feeds = {n: self.values[n] for n in node.input if n in self.values}
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in feeds.items()]
        output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "one", inputs, [output], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]

    def conv(self, x, out, kernel, stride=1, groups=1, act=None, gain=1.0):
        """Convolution with folded batch normalisation; `kernel` is one number per spatial axis."""
        data = self.values[x]
        axes = data.ndim - 2
        shape = (out, data.shape[1] // groups, *[kernel] * axes)
        fan_in = int(np.prod(shape[1:]))
        weights = self.rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        if kernel > 1:
            # Filters learnt from images mostly smooth: white noise dies out in them, as it should.
            weights += self.rng.normal(0, np.sqrt(2 / fan_in), (*shape[:2], *[1] * axes)).astype(np.float32)
        if groups > 1:
            weights = np.abs(weights)
        attributes = dict(kernel_shape=[kernel] * axes, strides=[stride] * axes, pads=[kernel // 2] * 2 * axes, group=groups)
        probe = helper.make_node("Conv", [x, "w"], ["probe"], **attributes)
        self.initializers.append(numpy_helper.from_array(weights, "w"))
        seen = self._run(probe)
        self.initializers.pop()
        spots = (0,) + tuple(range(2, seen.ndim))
        mean, deviation = seen.mean(spots), seen.std(spots) + 1e-3
        gamma = self.rng.lognormal(-0.1, 0.3, out) * gain
        beta = self.rng.normal(0.8, 0.6, out) * gain
        scale = gamma / deviation
        folded = (weights * scale.reshape(-1, *[1] * (axes + 1))).astype(np.float32)
        bias = (beta - mean * scale).astype(np.float32)
        name = f"conv_{self.count + 1}"
        inputs = [x, self.constant(name + "_w", folded), self.constant(name + "_b", bias)]
        y = self.node("Conv", inputs, **attributes)
        self.macs += int(np.prod(self.values[y].shape[1:])) * fan_in
        return self.act(y, act)

    def act(self, x, kind):
        if kind == "relu":
            return self.node("Relu", [x])
        if kind == "relu6":
            if "six" not in [t.name for t in self.initializers]:
                self.initializers.append(numpy_helper.from_array(np.float32(0), "zero"))
                self.initializers.append(numpy_helper.from_array(np.float32(6), "six"))
            return self.node("Clip", [x, "zero", "six"])
        return x

    def linear(self, x, out, act=None):
        data = self.values[x]
        deviation = float(data.std()) + 1e-3
        weights = self.rng.normal(0, 1.5 / np.sqrt(data.shape[1]) / deviation, (data.shape[1], out)).astype(np.float32)
        bias = (self.rng.normal(0, 0.3, out) - data.mean(0) @ weights).astype(np.float32)
        name = f"gemm_{self.count + 1}"
        y = self.node("Gemm", [x, self.constant(name + "_w", weights), self.constant(name + "_b", bias)])
        self.macs += data.shape[1] * out
        return self.act(y, act)

    def head(self, x, classes):
        return self.linear(self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1), classes)

    def model(self, last):
        """The whole net for one row: `input` FP32 -> `output` FP32."""
        self.nodes[-1].output[0] = "output"
        self.values["output"] = self.values.pop(last)
        info = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, *self.values[n].shape[1:]])
        graph = helper.make_graph(self.nodes, self.name, [info("input")], [info("output")], self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="flotilla-bench-models", ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def mobilenet_v1(b):
    x = b.conv("input", 32, 3, 2, act="relu6")
    channels = 32
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in plan:
        x = b.conv(x, channels, 3, stride, groups=channels, act="relu6")
        x = b.conv(x, out, 1, act="relu6")
        channels = out
    return b.head(x, 1000)


def mobilenet_v2(b):
    x = b.conv("input", 32, 3, 2, act="relu6")
    channels = 32
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, out, repeats, first_stride in plan:
        for i in range(repeats):
            stride, before, wide = (first_stride if i == 0 else 1), x, channels * expand
            if expand > 1:
                x = b.conv(x, wide, 1, act="relu6")
            x = b.conv(x, wide, 3, stride, groups=wide, act="relu6")
            x = b.conv(x, out, 1)
            if stride == 1 and channels == out:
                x = b.node("Add", [before, x])
            channels = out
    return b.head(b.conv(x, 1280, 1, act="relu6"), 1000)


def resnet18(b):
    x = b.conv("input", 64, 7, 2, act="relu")
    x = b.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for out in (64, 128, 256, 512):
        for i in range(2):
            stride = 2 if i == 0 and out != 64 else 1
            short = x if stride == 1 and channels == out else b.conv(x, out, 1, stride)
            y = b.conv(b.conv(x, out, 3, stride, act="relu"), out, 3, gain=0.6)
            x = b.act(b.node("Add", [y, short]), "relu")
            channels = out
    return b.head(x, 1000)


def mlp(b):
    return b.linear(b.linear(b.linear("input", 1024, act="relu"), 512, act="relu"), 10)


def conv1d(b):
    x = b.conv("input", 32, 7, 2, act="relu")
    x = b.conv(x, 64, 5, 2, act="relu")
    x = b.conv(x, 64, 3, act="relu")
    x = b.node("MaxPool", [x], kernel_shape=[2], strides=[2])
    for out in (128, 128):
        x = b.conv(x, x_channels(b, x), 3, groups=x_channels(b, x), act="relu")
        x = b.conv(x, out, 1, act="relu")
    return b.head(x, 12)


def x_channels(b, x):
    return b.values[x].shape[1]


# net, kind of data
NETS = {
    "mobilenet_v1": (mobilenet_v1, "image"),
    "mobilenet_v2": (mobilenet_v2, "image"),
    "resnet18": (resnet18, "image"),
    "mlp": (mlp, "features"),
    "conv1d": (conv1d, "signal"),
}
