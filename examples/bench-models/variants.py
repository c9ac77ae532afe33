"""f32 -> the precisions and formats in which quantizing tools hand models on."""

import contextlib
import os
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

# What the benchmark runs; the rest is for correctness only.
MEASURED = "int8"
U8, S8 = QuantType.QUInt8, QuantType.QInt8

# variant: format, activations, weights, per channel
STATIC = {
    MEASURED: (QuantFormat.QDQ, U8, S8, True),
    "qdq_s8s8": (QuantFormat.QDQ, S8, S8, True),
    "qdq_u8s8_tensor": (QuantFormat.QDQ, U8, S8, False),
    "qdq_u8u8_tensor": (QuantFormat.QDQ, U8, U8, False),
    "qop_u8s8": (QuantFormat.QOperator, U8, S8, True),
    "qop_s8s8": (QuantFormat.QOperator, S8, S8, True),
    "qop_u8u8_tensor": (QuantFormat.QOperator, U8, U8, False),
}


class _Rows(CalibrationDataReader):
    def __init__(self, rows):
        self.rows = iter([{"input": row[None]} for row in rows])

    def get_next(self):
        return next(self.rows, None)


@contextlib.contextmanager
def _saved(model):
    """Path of the model and of what is to be made from it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "f32.onnx"), os.path.join(folder, "made.onnx")
        onnx.save(model, source)
        yield source, target


def static(model, variant, calibration):
    """Scales from the least and greatest values that the calibration rows give."""
    form, activations, weights, per_channel = STATIC[variant]
    with _saved(model) as (source, target):
        quantize_static(
            source, target, _Rows(calibration), quant_format=form, activation_type=activations,
            weight_type=weights, per_channel=per_channel, extra_options={"ActivationSymmetric": activations == S8},
        )
        return onnx.load(target)


def dynamic(model):
    """Weights stored in int8; activations quantized while running, by their range."""
    with _saved(model) as (source, target):
        quantize_dynamic(source, target, weight_type=U8, per_channel=False)
        return onnx.load(target)


def half(model):
    """Weights stored as f16 and cast on load."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    casts, kept = [], []
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 2:
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(values.astype(np.float16), tensor.name + "_f16"))
        casts.append(helper.make_node("Cast", [tensor.name + "_f16"], [tensor.name], name=tensor.name + "_cast", to=TensorProto.FLOAT))
    nodes = casts + list(made.graph.node)
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend(kept)
    made.graph.node.extend(nodes)
    return made
