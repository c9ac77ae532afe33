"""Layers -> ONNX: f32, f16 weights, and int8 (static QDQ, weights per channel)."""

import os
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from net import CONVS, POOL_AFTER

OPSET = 17


def to_onnx(layers, half=False):
    """`image` FP32 [N, 1, 8, 8], pixels 0..1 -> `logits` FP32 [N, 10]. `half`: weights stored as f16, cast on load."""
    nodes, initializers = [], []

    def constant(name, values):
        if not half:
            initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
            return
        initializers.append(numpy_helper.from_array(values.astype(np.float16), name + "_f16"))
        nodes.append(helper.make_node("Cast", [name + "_f16"], [name], name=name + "_cast", to=TensorProto.FLOAT))

    last = "image"
    for name, _, _, k, groups in CONVS:
        w, b = layers[name]
        constant(name + "_w", w)
        constant(name + "_b", b)
        nodes.append(
            helper.make_node(
                "Conv", [last, name + "_w", name + "_b"], [name + "_y"], name=name,
                kernel_shape=[k, k], pads=[k // 2] * 4, strides=[1, 1], group=groups,
            )
        )
        nodes.append(helper.make_node("Relu", [name + "_y"], [name + "_relu"], name=name + "_act"))
        last = name + "_relu"
        if name == POOL_AFTER:
            nodes.append(helper.make_node("MaxPool", [last], ["pooled"], name="pool", kernel_shape=[2, 2], strides=[2, 2]))
            last = "pooled"
    nodes.append(helper.make_node("Flatten", [last], ["flat"], name="flatten", axis=1))
    constant("fc_w", layers["fc"][0])
    constant("fc_b", layers["fc"][1])
    nodes.append(helper.make_node("Gemm", ["flat", "fc_w", "fc_b"], ["logits"], name="fc"))

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "digits", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="flotilla-digits")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


class _Images(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter([{"image": image[None]} for image in images])

    def get_next(self):
        return next(self.batches, None)


def to_int8(model, calibration):
    """Static quantization: activations u8, weights s8 with a scale per output channel."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "f32.onnx"), os.path.join(folder, "int8.onnx")
        onnx.save(model, source)
        quantize_static(
            source, target, _Images(calibration), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )
        return onnx.load(target)
