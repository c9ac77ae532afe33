"""The small models: each a few nodes, one for each operator and form that the lowering knows or must leave alone.

A case is a function that fills a graph and gives (shape of the input, output, steps, nodes left to tract). `steps` is how
far an output may be from ONNX Runtime's: one step of its quantization, or a little where it isn't quantized.
"""

import numpy as np
from onnx import TensorProto, helper

CASES = {}
IMAGE, SIGNAL, ROWS = (8, 6, 6), (6, 24), (5, 24)
IN, OUT = (0.02, 121), (0.03, 133)
CLOSE = 1e-5
FAR = (1 << 63) - 1
OPSETS = range(10, 22)  # those that are said to be tested


def case(opset=17, **forms):
    def keep(make):
        for name, arguments in forms.items() if forms else [("", {})]:
            arguments = {"make": arguments} if callable(arguments) else dict(arguments)
            own = arguments.pop("opset", opset)
            label = "_".join(part for part in (make.__name__, name) if part)
            CASES[label] = (make, own, arguments)
        return make

    return keep


def entry(g, kind=np.uint8):
    """The input quantized: 8-bit values and their parameters."""
    params = g.params(IN[0], IN[1] if kind == np.uint8 else -3, kind)
    return g.quantize("input", params), params


def exit_params(g, kind=np.uint8, scale=OUT[0]):
    return g.params(scale, OUT[1] if kind == np.uint8 else 5, kind)


def qdq(g, result, kind=np.uint8, scale=OUT[0]):
    return g.qdq(result, exit_params(g, kind, scale)), scale


def view(g, kind=np.uint8):
    return g.dequantize(*entry(g, kind))


@case(
    u8s8_channel={"scales": 12},
    u8s8_tensor={"opset": 10},
    s8s8={"acts": np.int8, "scales": 12, "opset": 21},
    u8u8={"kind": np.uint8},
    grouped={"shape": (12, 4, 3, 3), "scales": 12, "more": {"group": 2}},
    depthwise={"shape": (8, 1, 3, 3), "scales": 8, "more": {"group": 8}},
    depthwise_u8={"shape": (8, 1, 3, 3), "kind": np.uint8, "more": {"group": 8}},
    depthwise_strided={"shape": (8, 1, 3, 3), "more": {"group": 8, "strides": [2, 2]}},
    multiplied={"shape": (16, 1, 3, 3), "scales": 16, "more": {"group": 8}},
    pointwise={"shape": (20, 8, 1, 1), "scales": 20, "more": {"pads": [0] * 4}},
    dilated={"more": {"dilations": [2, 2], "pads": [2, 2, 2, 2]}},
    odd={"shape": (12, 8, 2, 5), "more": {"strides": [2, 1], "pads": [1, 0, 0, 2]}},
    same={"more": {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "opset": 11},
    counted_back={"scales": 12, "axis": -4},
)
def qdq_conv(g, shape=(12, 8, 3, 3), kind=np.int8, acts=np.uint8, scales=1, axis=0, more=None):
    more = dict(more or {})
    if "auto_pad" not in more:
        more.setdefault("pads", [1] * 4)
    weights = g.dequantized_weights(*shape, kind=kind, scales=scales, axis=axis)
    bias = g.bias(shape[0], IN[0], acts == np.int8)
    made = g.op("Relu", [g.op("Conv", [view(g, acts), weights, bias], kernel_shape=list(shape[2:]), **more)])
    return (IMAGE, *qdq(g, made, acts), [])


@case(saturated={"scale": OUT[0]}, inside={"scale": 1500.0})
def far_bias(g, scale):
    """Biases near i32's limits: with the sums they go beyond them. Graphs that aren't optimised add them in f32."""
    weights = g.dequantized_weights(12, 8, 3, 3, scales=12)
    far = [(1 << 31) - 1, -(1 << 31), (1 << 31) - 9000, 9000 - (1 << 31)]
    values = g.constant(np.array([far[place % 4] for place in range(11)] + [100], np.int32), "b")
    units = (np.float32(IN[0]) * g.weight_scale).astype(np.float32)
    bias = [values, g.constant(units, "scale"), g.constant(np.zeros(12, np.int32), "zero")]
    made = g.op("Conv", [view(g), weights, g.op("DequantizeLinear", bias, axis=0)], pads=[1] * 4)
    return (IMAGE, *qdq(g, made, scale=scale), [])


@case(u8s8={"scales": 12}, s8s8={"acts": np.int8, "scales": 12}, u8u8={"kind": np.uint8}, no_bias={"bias": False, "opset": 10})
def qlinear_conv(g, kind=np.int8, acts=np.uint8, scales=1, bias=True):
    value, params = entry(g, acts)
    to = exit_params(g, acts)
    inputs = [value, *params, *g.weights(12, 8, 3, 3, kind=kind, scales=scales), *to]
    if bias:
        inputs.append(g.constant(g.random.integers(-5000, 5000, 12).astype(np.int32), "b"))
    return IMAGE, g.dequantize(g.op("QLinearConv", inputs, pads=[1] * 4, kernel_shape=[3, 3]), to), OUT[0], []


@case(plain={}, strided={"more": {"strides": [2], "dilations": [2]}})
def qdq_conv_1d(g, more=None):
    weights = g.dequantized_weights(10, 6, 5, scales=10)
    return (SIGNAL, *qdq(g, g.op("Conv", [view(g), weights], kernel_shape=[5], pads=[2, 2], **(more or {}))), [])


@case(two={"shape": (24,)}, turned={"shape": (24,), "turned": 1}, u8={"shape": (24,), "kind": np.uint8}, old={"shape": (24,), "opset": 10})
def qdq_gemm(g, shape, turned=0, kind=np.int8):
    size = (18, 24) if turned else (24, 18)
    weights = g.dequantized_weights(*size, kind=kind)
    made = g.op("Gemm", [view(g), weights, g.bias(18, IN[0])], transB=turned)
    return (shape, *qdq(g, made, scale=0.05), [])


@case(vectors={"shape": (24,)}, sequences={"shape": ROWS}, biased={"shape": ROWS, "bias": True})
def qdq_matmul(g, shape, bias=False):
    made = g.op("MatMul", [view(g), g.dequantized_weights(24, 18, scales=18, axis=1)])
    if bias:
        made = g.op("Add", [made, g.constant(g.floats(18), "b")])
    return (shape, *qdq(g, made, scale=0.05), [])


@case()
def qdq_gemm_to_f32(g):
    """The last layer's result isn't quantized again."""
    return (24,), g.op("Gemm", [view(g), g.dequantized_weights(24, 18), g.bias(18, IN[0])]), CLOSE, []


@case(tensor={}, s8={"acts": np.int8}, to_f32={"is_float": True})
def qgemm(g, acts=np.uint8, is_float=False):
    value, params = entry(g, acts)
    to = [] if is_float else exit_params(g, acts, 0.05)
    bias = g.constant(g.random.integers(-5000, 5000, 18).astype(np.int32), "b")
    made = g.op("QGemm", [value, *params, *g.weights(24, 18), bias, *to], transB=0)
    return ((24,), made, CLOSE, []) if is_float else ((24,), g.dequantize(made, to), 0.05, [])


@case(u8s8={}, u8u8={"kind": np.uint8, "opset": 10})
def qlinear_matmul(g, kind=np.int8):
    value, params = entry(g)
    to = exit_params(g, scale=0.05)
    return ROWS, g.dequantize(g.op("QLinearMatMul", [value, *params, *g.weights(24, 18, kind=kind), *to]), to), 0.05, []


@case(add={"kind": "Add"}, mul={"kind": "Mul"}, add_s8={"kind": "Add", "acts": np.int8}, add_old={"kind": "Add", "opset": 10})
def qdq_pair(g, kind, acts=np.uint8):
    a = view(g, acts)
    b = g.qdq(g.op("Neg", ["input"]), g.params(0.03, 7 if acts == np.int8 else 100, acts))
    return (IMAGE, *qdq(g, g.op("Relu", [g.op(kind, [a, b])]), acts), ["Neg"])


@case(
    add={"kind": "QLinearAdd"}, mul={"kind": "QLinearMul"}, add_s8={"kind": "QLinearAdd", "acts": np.int8}, mul_s8={"kind": "QLinearMul", "acts": np.int8},
    add_left_out={"kind": "QLinearAdd", "unsaid": True}, mul_left_out={"kind": "QLinearMul", "unsaid": True},
)  # fmt: skip
def qlinear_pair(g, kind, acts=np.uint8, unsaid=False):
    if unsaid:
        return unsaid_zeros(g, kind, 2)
    value, params = entry(g, acts)
    other = g.params(0.01, 9, acts)
    to = exit_params(g, acts)
    b = g.quantize("input", other)
    return IMAGE, g.dequantize(g.op(kind, [value, *params, b, *other, *to]), to), OUT[0], []


def unsaid_zeros(g, kind, operands=1, is_said_after=False, **more):
    """Zero points of s8 that are 0 and left out: of the result, and of what dequantizes it."""
    params, to = g.params(IN[0], 0, np.int8), g.params(OUT[0], 0, np.int8)
    inputs = [g.quantize("input", params), *params] * operands
    made = g.op(kind, [*inputs, to[0]], **more)
    return IMAGE, g.dequantize(made, to if is_said_after else to[:1]), OUT[0], []


@case(channel={"shape": (1, 8, 1, 1)}, whole={"shape": (1, 8, 6, 6)})
def qlinear_constant(g, shape):
    """A constant as the second operand."""
    value, params = entry(g)
    other, to = g.params(0.01, 120), exit_params(g)
    b = g.constant(g.integers(np.uint8, *shape))
    return IMAGE, g.dequantize(g.op("QLinearMul", [value, *params, b, *other, *to]), to), OUT[0], []


@case()
def qdq_gate(g):
    """Squeeze and excitation: an image times one value for each channel."""
    image = view(g)
    pooled, _ = qdq(g, g.op("GlobalAveragePool", [image]), scale=0.01)
    gate, _ = qdq(g, g.op("Sigmoid", [pooled]), scale=0.004)
    return (IMAGE, *qdq(g, g.op("Mul", [image, gate])), [])


@case(channels={"axis": 1}, rows={"axis": -1, "shape": ROWS})
def qdq_concat(g, axis, shape=IMAGE):
    parts = [view(g), g.qdq("input", g.params(0.05, 100)), view(g)]
    return (shape, *qdq(g, g.op("Concat", parts, axis=axis)), [])


@case(**{"": {}}, s8={"acts": np.int8})
def qlinear_concat(g, acts=np.uint8):
    to = exit_params(g, acts)
    a, other = entry(g, acts), g.params(0.05, 100, acts)
    made = g.op("QLinearConcat", [*to, a[0], *a[1], g.quantize("input", other), *other], axis=1)
    return IMAGE, g.dequantize(made, to), OUT[0], []


BEYOND = {"strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1, "ceil_mode": 1}  # the last windows reach beyond the padding


@case(
    global_={"kind": "QLinearGlobalAveragePool"}, window={"kind": "QLinearAveragePool"},
    global_s8={"kind": "QLinearGlobalAveragePool", "acts": np.int8}, beyond={"kind": "QLinearAveragePool", "extra": BEYOND},
    window_s8={"kind": "QLinearAveragePool", "acts": np.int8}, left_out={"unsaid": {}}, left_out_said_after={"unsaid": {"is_said_after": True}},
)  # fmt: skip
def qlinear_pool(g, kind="QLinearAveragePool", acts=np.uint8, extra=None, unsaid=None):
    if unsaid is not None:
        return unsaid_zeros(g, kind, kernel_shape=[3, 3], **unsaid)
    value, params = entry(g, acts)
    to = exit_params(g, acts, 0.01)
    more = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, **(extra or {})} if kind == "QLinearAveragePool" else {}
    return IMAGE, g.dequantize(g.op(kind, [value, *params, *to], **more), to), 0.01, []


@case(
    average={"kind": "AveragePool", "more": {"pads": [1] * 4, "count_include_pad": 1}},
    as_written_beyond={"kind": "AveragePool", "more": BEYOND},
    average_1d={"kind": "AveragePool", "shape": SIGNAL, "more": {"kernel_shape": [4], "strides": [3]}},
    max={"kind": "MaxPool", "more": {"ceil_mode": 1, "strides": [2, 2]}},
    max_old={"kind": "MaxPool", "opset": 10},
    max_s8={"kind": "MaxPool", "acts": np.int8, "more": {"pads": [1] * 4}},
    global_={"kind": "GlobalAveragePool", "more": {"kernel_shape": None}},
)
def qdq_pool(g, kind, shape=IMAGE, acts=np.uint8, more=None):
    more = {"kernel_shape": [3, 3], **(more or {})}
    made = g.op(kind, [view(g, acts)], **{key: value for key, value in more.items() if value is not None})
    return (shape, *qdq(g, made, acts, 0.01), [])


LEAKY = {"kind": "QLinearLeakyRelu", "more": {"alpha": 0.2}}


@case(
    leaky=LEAKY, sigmoid={"kind": "QLinearSigmoid"}, leaky_s8={**LEAKY, "acts": np.int8}, sigmoid_s8={"kind": "QLinearSigmoid", "acts": np.int8},
)  # fmt: skip
def qlinear_unary(g, kind, more=None, acts=np.uint8):
    value, params = entry(g, acts)
    to = g.params(1 / 64, 60 if acts == np.uint8 else -20, acts)
    return IMAGE, g.dequantize(g.op(kind, [value, *params, *to], **(more or {})), to), 1 / 64, []


@case(
    sigmoid={"kind": "Sigmoid"}, hard_swish={"kind": "HardSwish"}, hard_sigmoid={"kind": "HardSigmoid"}, tanh={"kind": "Tanh"},
    leaky={"kind": "LeakyRelu"}, clip={"kind": "Clip"}, relu_s8={"kind": "Relu", "acts": np.int8}, elu={"kind": "Elu", "opset": 10},
)  # fmt: skip
def qdq_unary(g, kind, acts=np.uint8):
    bounds = [g.constant(np.float32(0)), g.constant(np.float32(0.7))] if kind == "Clip" else []
    return (IMAGE, *qdq(g, g.op(kind, [view(g, acts), *bounds]), acts, 0.015), [])


@case(alone={"is_alone": True}, folded={})
def crossed_clip(g, is_alone=False):
    """A lower bound above the upper one: all results are the upper one."""
    source = view(g) if is_alone else g.op("Conv", [view(g), g.dequantized_weights(8, 8, 1, 1)])
    made = g.op("Clip", [source, g.constant(np.float32(0.9)), g.constant(np.float32(0.3))])
    return (IMAGE, *qdq(g, made, scale=0.015), [])


@case()
def qdq_softmax(g):
    scores, _ = qdq(g, g.op("Gemm", [view(g), g.dequantized_weights(24, 18)]), scale=0.05)
    return (24,), g.op("Softmax", [scores], axis=-1), 0.01, []


@case(
    reshape={"kind": "Reshape", "ints": [0, 4, -1]}, transpose={"kind": "Transpose", "more": {"perm": [0, 2, 3, 1]}},
    slice={"kind": "Slice", "ints": None}, flatten={"kind": "Flatten"}, squeeze={"kind": "Unsqueeze", "ints": [1]},
)  # fmt: skip
def qdq_move(g, kind, ints=(), more=None):
    """Operators that move values; a layer before and one after them."""
    image, _ = qdq(g, g.op("Conv", [view(g), g.dequantized_weights(8, 8, 1, 1)]))
    if kind == "Slice":
        lists = [[2, 1], [6, 5], [1, 3]]
    else:
        lists = [ints] if ints else []
    extra = [g.constant(np.array(values, np.int64)) for values in lists]
    moved = g.qdq(g.op(kind, [image, *extra], **(more or {})), exit_params(g))
    return (IMAGE, *qdq(g, g.op("Relu", [moved])), [])


@case(twice={"scales": [1, 1, 2, 2]}, wide={"scales": [1, 1, 1, 3], "opset": 11})
def qdq_resize(g, scales):
    extra = [g.constant(np.zeros(0, np.float32)), g.constant(np.array(scales, np.float32))]  # no region of interest
    made = g.op("Resize", [view(g), *extra], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    return (IMAGE, *qdq(g, made), [])


@case(
    twice={"scales": [2, 2]}, half={"scales": [0.5, 0.5]}, uneven={"scales": [1.7, 0.6]}, sizes={"sizes": [9, 13], "opset": 18}, corner={"scales": [2, 3], "mode": "asymmetric"},
    corners={"sizes": [11, 7], "mode": "align_corners", "opset": 18}, torch={"sizes": [1, 12], "mode": "pytorch_half_pixel", "opset": 18}, one={"sizes": [1, 1], "mode": "align_corners", "opset": 18},
    s8={"scales": [2, 2], "acts": np.int8}, old={"scales": [2, 2], "opset": 10}, newer={"sizes": [12, 3], "opset": 19}, to_f32={"scales": [2, 2], "is_float": True},
)  # fmt: skip
def resize_between(g, scales=(), sizes=(), mode=None, acts=np.uint8, is_float=False):
    """Values between pixels, as networks for segmentation have them."""
    image, _ = qdq(g, g.op("Conv", [view(g, acts), g.dequantized_weights(11, 8, 1, 1)]), acts)
    listed = g.constant(np.array([1, 1, *scales] if scales else [], np.float32))
    if g.opset < 11:
        made = g.op("Resize", [image, listed], mode="linear")
    else:
        extra = [g.constant(np.array(sizes))] if sizes else []
        more = {"coordinate_transformation_mode": mode} if mode else {}
        if sizes:
            more["axes"] = [2, 3]
        made = g.op("Resize", [image, g.constant(np.zeros(0, np.float32)), listed, *extra], mode="linear", **more)
    return (IMAGE, made, CLOSE, []) if is_float else (IMAGE, *qdq(g, g.op("Relu", [made]), acts), [])


@case(
    twice={"scales": [2, 2]}, uneven={"scales": [1.7, 0.6]}, third={"scales": [0.34, 3]}, corner={"scales": [2, 3], "mode": "asymmetric"},
    corners={"sizes": [11, 7], "mode": "align_corners", "opset": 18}, s8={"scales": [2.3, 2], "acts": np.int8}, old={"scales": [2, 2], "opset": 10},
)  # fmt: skip
def resize_bytes(g, scales=(), sizes=(), mode=None, acts=np.uint8):
    """The same in the QOperator form: bytes in, bytes out, cut off."""
    value, params = entry(g, acts)
    listed = g.constant(np.array([1, 1, *scales] if scales else [], np.float32))
    more = {"coordinate_transformation_mode": mode} if mode else {}
    extra = [g.constant(np.array(sizes))] if sizes else []
    if sizes:
        more["axes"] = [2, 3]
    region = [g.constant(np.zeros(0, np.float32))] if g.opset > 10 else []
    made = g.op("Resize", [value, *region, listed, *extra], mode="linear", **more)
    return IMAGE, g.dequantize(made, params), CLOSE, []


@case(twice={"scale": 2}, four={"scale": 4, "acts": np.int8})
def resize_ties(g, scale, acts=np.uint8):
    """Quarters of a step are many here; those that are half of one are rounded as their sum comes out."""
    scales = [g.constant(np.zeros(0, np.float32)), g.constant(np.array([1, 1, scale, scale], np.float32))]
    value, params = entry(g, acts)
    return IMAGE, g.qdq(g.op("Resize", [g.dequantize(value, params), *scales], mode="linear"), params), CLOSE, []


@case(
    floor={"nearest_mode": "floor", "opset": 11},
    between={"nearest_mode": "round_prefer_floor", "left": ["Resize"], "opset": 11},
)
def resize_from_half(g, nearest_mode, left=()):
    """Places half a pixel further than centred ones: cut off they repeat each pixel, rounded they don't."""
    extra = [g.constant(np.zeros(0, np.float32)), g.constant(np.array([1, 1, 2, 2], np.float32))]
    more = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": nearest_mode}
    made = g.op("Resize", [view(g), *extra], mode="nearest", **more)
    return (IMAGE, *qdq(g, made), list(left))


@case(part={"scale": 1.5, "opset": 10}, thrice={"scale": 3.0, "opset": 10}, half={"scale": 0.5, "opset": 10})
def resize_old(g, scale):
    """Before Resize said which pixel is the nearest."""
    scales = g.constant(np.array([1, 1, scale, scale], np.float32))
    return (2, 8, 8), g.op("Relu", [g.op("Resize", ["input", scales], mode="nearest")]), CLOSE, None


def turned(g, value, *perm):
    return g.op("Transpose", [value], perm=list(perm))


@case(
    conv={}, convs={"layers": 2}, depthwise={"group": 8}, strided={"more": {"strides": [2, 2]}},
    max={"pool": "NhwcMaxPool"}, average={"pool": "QLinearAveragePool"}, global_={"pool": "QLinearGlobalAveragePool"},
)  # fmt: skip
def channels_last(g, layers=1, group=1, pool=None, more=None):
    """What ONNX Runtime writes of a graph that it optimised. As many channels as rows: a wrong order would fit."""
    value, params = entry(g)
    value = turned(g, value, 0, 2, 3, 1)
    for _ in range(layers):
        to = exit_params(g)
        weights = g.weights(8, 8 // group, 3, 3, scales=8)
        value = g.op("ContribQLinearConv", [value, *params, *weights, *to], pads=[1] * 4, kernel_shape=[3, 3], group=group, channels_last=1, **(more or {}))
        params = to
    scale = OUT[0]
    window = {} if pool == "QLinearGlobalAveragePool" else {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    if pool == "NhwcMaxPool":
        value = g.op(pool, [value], **window)
    elif pool:
        scale = 0.01
        to = exit_params(g, scale=scale)
        value = g.op(pool, [value, *params, *to], channels_last=1, **window)
        params = to
    return (8, 8, 10), g.dequantize(turned(g, value, 0, 3, 1, 2), params), scale, []


@case(signal={})
def channels_last_1d(g):
    value, params = entry(g)
    to = exit_params(g)
    inputs = [turned(g, value, 0, 2, 1), *params, *g.weights(24, 6, 5, scales=24), *to]
    made = g.op("ContribQLinearConv", inputs, pads=[2, 2], kernel_shape=[5], channels_last=1)
    return SIGNAL, g.dequantize(turned(g, made, 0, 2, 1), to), OUT[0], []


@case(
    add_pixels={"kind": "QLinearAdd", "shape": (1, 6, 6)}, mul_columns={"kind": "QLinearMul", "shape": (8, 6, 1)},
    concat={"kind": "QLinearConcat"},
)  # fmt: skip
def spelled_out(g, kind, shape=()):
    """Forms of com.microsoft's operators that no kernel for bytes knows: they run in f32, or tract runs them in ONNX's
    words."""
    value, params = entry(g)
    other, to = g.params(0.05, 100), exit_params(g)
    if kind == "QLinearConcat":
        made = g.op(kind, [*to, value, *params, g.quantize("input", other), *other], axis=2)
    else:
        axis = 1 if shape[0] == 1 else 3
        small = g.op("ReduceMean", ["input"], axes=[axis], keepdims=1)
        made = g.op(kind, [value, *params, g.quantize(small, other), *other, *to])
    last = g.op("QLinearLeakyRelu", [made, *to, *to], alpha=0.2)
    left = [kind] if kind == "QLinearConcat" else ["ReduceMean"] if shape[0] == 1 else []
    return IMAGE, g.dequantize(last, to), OUT[0], left


@case(lstm={"kind": "LSTM", "gates": 4}, gru={"kind": "GRU", "gates": 3})
def recurrent(g, kind, gates, width=5):
    """A loop over a sequence, which tract can't plan for any number of rows, before a quantized layer."""
    weights = [g.constant(0.3 * g.floats(1, gates * width, size)) for size in (4, width)]
    rows = g.op(kind, [turned(g, "input", 1, 0, 2), *weights, g.constant(g.floats(1, 2 * gates * width))], hidden_size=width)
    flat = g.op("Flatten", [turned(g, rows, 2, 0, 1, 3)], axis=1)
    made = g.op("Gemm", [g.qdq(flat, g.params(0.01, 128)), g.dequantized_weights(7 * width, 6)])
    return ((7, 4), *qdq(g, made), ["Transpose", kind, "Transpose", "Flatten"])


@case()
def recurrent_alone(g, width=5):
    weights = [g.constant(0.3 * g.floats(1, 4 * width, size)) for size in (4, width)]
    rows = g.op("LSTM", [turned(g, "input", 1, 0, 2), *weights], hidden_size=width)
    return (7, 4), g.op("Flatten", [turned(g, rows, 2, 0, 1, 3)], axis=1), CLOSE, None


@case()
def squeezed_pool(g):
    """All axes of size 1 go: the batch isn't one of them, though it is planned as one row."""
    pooled, scale = qdq(g, g.op("GlobalAveragePool", [view(g)]), scale=0.01)
    return IMAGE, g.op("Squeeze", [pooled]), scale, []


@case(
    conv={"kind": "ConvInteger"}, conv_u8={"kind": "ConvInteger", "weights": np.uint8}, conv_channel={"kind": "ConvInteger", "scales": 12},
    conv_depthwise={"kind": "ConvInteger", "group": 8}, matmul={"kind": "MatMulInteger"}, matmul_u8={"kind": "MatMulInteger", "weights": np.uint8},
    matmul_channel={"kind": "MatMulInteger", "scales": 18}, matmul_u8_channel={"kind": "MatMulInteger", "weights": np.uint8, "scales": 18},
    old={"kind": "MatMulInteger", "weights": np.uint8, "opset": 11},
    **{f"conv_opset_{opset}": {"kind": "ConvInteger", "opset": opset} for opset in OPSETS[1:]},
    **{f"matmul_opset_{opset}": {"kind": "MatMulInteger", "scales": 18, "opset": opset} for opset in OPSETS[1:]},
)  # fmt: skip
def dynamic(g, kind, weights=np.int8, scales=1, group=1):
    is_conv = kind == "ConvInteger"
    value, scale, zero = g.op("DynamicQuantizeLinear", ["input"], 3)
    outs = 12 if group == 1 else group
    bytes_, own_scale, own_zero = g.weights(*((outs, 8 // group, 3, 3) if is_conv else (24, 18)), kind=weights, scales=scales)
    more = {"pads": [1] * 4, "kernel_shape": [3, 3], "group": group} if is_conv else {}
    if is_conv and scales != 1:  # as quantize_dynamic writes them: one scale for each channel, one zero point for all
        own_scale = g.constant(g.weight_scale.reshape(1, outs, 1, 1), "ws")
        own_zero = g.constant(np.int8(0), "wz")
    sums = g.op("Cast", [g.op(kind, [value, bytes_, zero, own_zero], **more)], to=TensorProto.FLOAT)
    made = g.op("Mul", [sums, g.op("Mul", [scale, own_scale])])
    bias = g.floats(1, outs, 1, 1) if is_conv else g.floats(18)
    return (IMAGE if is_conv else ROWS), g.op("Relu", [g.op("Add", [made, g.constant(bias)])]), CLOSE, []


@case(conv={"is_conv": True}, matmul={"is_conv": False})
def dynamic_across(g, is_conv):
    """As many channels as places on another axis, and a constant for each of those places: not one for each channel."""
    value, scale, zero = g.op("DynamicQuantizeLinear", ["input"], 3)
    bytes_, own_scale, own_zero = g.weights(*((6, 8, 3, 3) if is_conv else (24, 5)), kind=np.uint8)
    more = {"pads": [1] * 4, "kernel_shape": [3, 3]} if is_conv else {}
    sums = g.op("ConvInteger" if is_conv else "MatMulInteger", [value, bytes_, zero, own_zero], **more)
    made = g.op("Mul", [g.op("Cast", [sums], to=TensorProto.FLOAT), g.op("Mul", [scale, own_scale])])
    bias = g.floats(6) if is_conv else g.floats(5, 1)
    return (IMAGE if is_conv else ROWS), g.op("Add", [made, g.constant(bias)]), CLOSE, []


@case(s8={}, u8={"kind": np.uint8})
def dynamic_quantize_matmul(g, kind=np.int8):
    weights = g.weights(24, 18, kind=kind)
    return ROWS, g.op("DynamicQuantizeMatMul", ["input", *weights, g.constant(g.floats(18))]), CLOSE, []


@case(plain={}, old={"opset": 10})
def half(g):
    """Weights in f16 that are cast where they are read; tract's whole."""
    weights = g.op("Cast", [g.constant(g.floats(12, 8, 3, 3).astype(np.float16))], to=TensorProto.FLOAT)
    return IMAGE, g.op("Conv", ["input", weights], pads=[1] * 4, kernel_shape=[3, 3]), 1e-3, None


@case()
def island(g):
    """A layer in f32 that int8 doesn't know between two that it does."""
    first, _ = qdq(g, g.op("Conv", [view(g), g.dequantized_weights(8, 8, 3, 3)], pads=[1] * 4))
    middle = g.op("Erf", [g.op("InstanceNormalization", [first, g.constant(g.floats(8)), g.constant(g.floats(8))])])
    second = g.qdq(middle, g.params(0.008, 128))
    made = g.op("Conv", [second, g.dequantized_weights(8, 8, 3, 3)], pads=[1] * 4)
    return (IMAGE, *qdq(g, made), ["InstanceNormalization", "Erf"])


@case()
def island_at_both_ends(g):
    """Layers in f32 before the first and after the last quantized one, with weights of their own."""
    first = g.op("Conv", ["input", g.constant(0.3 * g.floats(8, 8, 3, 3))], pads=[1] * 4)
    middle = g.op("Conv", [g.qdq(first, g.params(0.03, 128)), g.dequantized_weights(8, 8, 1, 1)])
    last, _ = qdq(g, middle)
    return IMAGE, g.op("Conv", [last, g.constant(0.1 * g.floats(4, 8, 1, 1))]), OUT[0], ["Conv", "Conv", "Identity"]


@case()
def wide_inverted_residual(g):
    """An expansion so wide that it and the depthwise convolution behind it run some rows at a time."""
    first, _ = qdq(g, g.op("Relu", [g.op("Conv", [view(g), g.dequantized_weights(192, 2, 1, 1, scales=192)])]))
    depthwise = [first, g.dequantized_weights(192, 1, 3, 3, scales=192)]
    made = g.op("Conv", depthwise, group=192, pads=[1] * 4, strides=[2, 2])
    second, _ = qdq(g, g.op("Relu", [made]))
    return ((2, 40, 40), *qdq(g, g.op("Conv", [second, g.dequantized_weights(4, 192, 1, 1)]), scale=0.2), [])


def layer(g):
    """Rows through a quantized layer: 18 values each, in f32 again."""
    made, _ = qdq(g, g.op("MatMul", [view(g), g.dequantized_weights(24, 18)]), scale=0.05)
    return made


@case(
    unsqueezed={"kind": "Unsqueeze", "values": [6], "axes": [1]},
    squeezed={"kind": "Squeeze", "values": [6, 1, 1], "axes": [2]},
    unsqueezed_old={"kind": "Unsqueeze", "values": [6], "axes": [1], "opset": 11},
)
def constant_axes(g, kind, values, axes):
    """Whole numbers whose axes are moved before one is added to each row."""
    numbers = g.constant(np.arange(6).reshape(values))
    if g.opset < 13:
        moved = g.op(kind, [numbers], axes=axes)
    else:
        moved = g.op(kind, [numbers, g.constant(np.array(axes))])
    column = g.op("Cast", [moved], to=TensorProto.FLOAT)
    return (6, 24), g.op("Add", [layer(g), column]), 0.05, []


@case()
def constant_listed(g):
    """Constants whose numbers stand in the node itself, one or a list."""
    listed = lambda **value: g.op("Constant", [], **value)
    params = [listed(value_float=IN[0]), g.constant(np.uint8(IN[1]))]
    value = g.dequantize(g.quantize("input", params), params)
    shape = listed(value_ints=[0, 0, -1])
    rows = g.op("Reshape", [value, shape])
    bias = listed(value_floats=[float(one) for one in g.floats(18)])
    made = g.op("Add", [g.op("MatMul", [rows, g.dequantized_weights(24, 18)]), bias])
    bounds = [listed(value_float=-0.5), listed(value_float=2.0)]
    last, scale = qdq(g, g.op("Clip", [made, *bounds]), scale=0.05)
    return ROWS, g.op("Slice", [last, listed(value_ints=[1]), listed(value_ints=[16]), listed(value_ints=[2])]), scale, []


@case()
def constant_index(g):
    """A picked place that keeps its axis: the rank of the result hangs on it."""
    places = g.op("Unsqueeze", [g.constant(np.array([4, 2, 1])), g.constant(np.array([1]))])
    return ROWS, g.op("Gather", [layer(g), places], axis=2), 0.05, ["Gather", "Identity"]


@case()
def constant_parts(g):
    """Weights in two parts of 8 bits: together they are still 8 bits."""
    parts = [g.constant(g.integers(np.int8, 12 * 18)) for _ in range(2)]
    whole = g.op("Concat", parts, axis=0)
    weights = g.op("Reshape", [whole, g.constant(np.array([24, 18]))])
    scale = g.params(0.004, 0, np.int8)
    return (ROWS, *qdq(g, g.op("MatMul", [view(g), g.dequantize(weights, scale)]), scale=0.05), [])


@case(picked={}, picked_s8={"acts": np.int8})
def island_of_bytes(g, acts=np.uint8):
    """An operator on 8-bit values that int8 doesn't know, behind a layer and before the end."""
    value, params = entry(g, acts)
    to = exit_params(g, acts)
    made = g.op("QLinearConv", [value, *params, *g.weights(8, 8, 1, 1), *to])
    picked = g.op("Gather", [made, g.constant(np.array([2, 0, 1, 7]))], axis=1)
    return IMAGE, g.dequantize(picked, to), OUT[0], ["Gather"]


@case(pad={"kind": "Pad"}, pad_s8={"kind": "Pad", "acts": np.int8}, split={"kind": "Split"})
def island_of_bytes_between(g, kind, acts=np.uint8):
    """The same between two layers of which only int8 knows one."""
    value, params = entry(g, acts)
    to = exit_params(g, acts)
    made = g.op("QLinearConv", [value, *params, *g.weights(8, 8, 1, 1), *to])
    if kind == "Pad":
        border = g.constant(acts(OUT[1] + 9 if acts == np.uint8 else -7))  # not the zero point, as int8 pads
        parts = [g.op("Pad", [made, g.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), border])] * 2
    else:
        picked = g.op("Gather", [made, g.constant(np.array([2, 0, 1, 7]))], axis=1)
        parts = g.op("Split", [picked, g.constant(np.array([2, 2]))], 2, axis=1)
    total = g.op("QLinearAdd", [parts[0], *to, parts[1], *to, *to])
    return IMAGE, g.dequantize(total, to), OUT[0], [kind] if kind == "Pad" else ["Gather", "Split"]


@case(direct={}, pooled={"pooled": True}, s8={"acts": np.int8})
def island_of_another_scale(g, pooled=False, acts=np.uint8):
    """8-bit values that are read by another scale and zero point than they were made by."""
    value, params = entry(g, acts)
    made = g.op("QLinearConv", [value, *params, *g.weights(8, 8, 1, 1), *exit_params(g, acts)])
    if pooled:
        made = g.op("MaxPool", [made], kernel_shape=[2, 2])
    other = g.params(0.09, 77, acts)
    return IMAGE, g.dequantize(made, other), 0.09, ["DequantizeLinear", "Identity"]


@case()
def two_readers(g):
    """8-bit values that two readers take by different scales."""
    value, params = entry(g)
    to = exit_params(g)
    made = g.op("QLinearConv", [value, *params, *g.weights(8, 8, 1, 1), *to])
    total = g.op("Add", [g.dequantize(made, to), g.dequantize(made, g.params(0.09, 77))])
    return IMAGE, total, OUT[0] + 0.09, ["DequantizeLinear", "Add", "Identity"]


@case()
def qdq_softplus(g):
    """Values up to 250: e to the power of them is beyond f32."""
    weights = g.dequantize(g.constant(g.integers(np.int8, 24, 18)), g.params(0.3, 0, np.int8))
    wide = g.qdq(g.op("MatMul", [view(g), weights]), g.params(2.0, 128))
    return ((24,), *qdq(g, g.op("Softplus", [wide]), scale=2.5), [])


@case(plain={}, old={"opset": 11}, s8={"acts": np.int8})
def qlinear_softmax(g, acts=np.uint8):
    lowest = np.iinfo(acts).min
    to, last = g.params(0.05, lowest + 128, acts), g.params(1 / 256, lowest, acts)
    value, params = entry(g, acts)
    scores = g.op("QLinearMatMul", [value, *params, *g.weights(24, 18), *to])
    made = g.op("QLinearSoftmax", [scores, *to, *last], axis=-1, opset=g.opset)
    return (24,), g.dequantize(made, last), 1 / 256, []


@case()
def qdq_matmul_raised(g):
    """A bias with more axes than the product: the sum has as many."""
    product = g.op("MatMul", [view(g), g.dequantized_weights(24, 18)])
    raised = g.op("Add", [product, g.constant(g.floats(1, 1, 18), "b")])
    sum_, scale = qdq(g, raised, scale=0.05)
    return (24,), g.op("Squeeze", [sum_, g.constant(np.array([0]))]), scale, ["Add"]


@case(product={}, plain={"is_quantized": False})
def second_input(g, is_quantized=True):
    """One row of a second input for all rows of the first."""
    more = g.second_input(1, 24)
    if is_quantized:
        total = g.op("Add", [view(g), g.qdq(more, g.params(0.01, 128))])
        return ((24,), *qdq(g, total), [])
    return (24,), g.op("Mul", ["input", more]), CLOSE, None


@case()
def none_lowered(g):
    """Quantized weights that meet f32 only. ONNX Runtime rounds the f32 to 8 bits in such a product, tract doesn't."""
    return (24,), g.op("MatMul", ["input", g.dequantized_weights(24, 18)]), 0.03, None


@case(softmax={"kind": "Softmax"}, erf={"kind": "Erf"})
def rounded(g, kind):
    """Nothing but rounding in 8 bits."""
    return ((24,), *qdq(g, g.op(kind, [g.qdq("input", g.params(0.04, 128))]), scale=1 / 64), [])


def trained(g, shape, kind=np.int8, axis=0, scales=1):
    """f32 weights that are quantized and dequantized again, as quantization-aware training exports them: some beyond the
    range of 8 bits, some half way between two steps."""
    scale = g.random.uniform(0.002, 0.006, scales).astype(np.float32)
    zero = g.random.integers(-9, 9, scales) if kind == np.int8 else g.random.integers(110, 140, scales)
    along = [1] * len(shape)
    along[axis] = scales
    steps = g.random.integers(-300, 301, shape) / 2
    values = (steps * scale.reshape(along)).astype(np.float32)
    per_axis = {} if scales == 1 else {"axis": axis}
    if scales == 1:
        scale, zero = scale[0], zero[0]
    params = [g.constant(scale, "ws"), g.constant(zero.astype(kind), "wz")]
    made = g.op("QuantizeLinear", [g.constant(values, "w"), *params], **per_axis)
    return g.op("DequantizeLinear", [made, *params], **per_axis)


@case(tensor={}, channel={"scales": 12}, u8={"kind": np.uint8})
def trained_conv(g, **more):
    weights = trained(g, (12, 8, 3, 3), **more)
    made = g.op("Relu", [g.op("Conv", [view(g), weights, g.constant(g.floats(12), "b")], pads=[1] * 4, kernel_shape=[3, 3])])
    return (IMAGE, *qdq(g, made, scale=0.05), [])


@case(turned={"shape": (18, 24), "turned": 1}, plain={"shape": (24, 18), "axis": 1})
def trained_gemm(g, shape, turned=0, axis=0):
    weights = trained(g, shape, axis=axis, scales=18)
    made = g.op("Gemm", [view(g), weights, g.constant(g.floats(18), "b")], transB=turned)
    return ((24,), *qdq(g, made, scale=0.05), [])


@case()
def trained_left(g):
    """Such weights behind an operator that is worked out at load: the product has them in f32, for any number of rows."""
    table = trained(g, (24, 18), axis=1, scales=18)
    picked = g.op("Gather", [table, g.constant(np.array([3, 1, 2]))], axis=1)
    return (24,), g.op("MatMul", [view(g), picked]), 0.03, ["MatMul", "Identity"]


@case(channel={"scales": 18}, tensor={}, trained={"scales": 18, "is_trained": True})
def turned_matmul(g, scales=1, is_trained=False):
    """A linear layer: its weights are stored outputs first and turned when they are read."""
    weights = trained(g, (18, 24), scales=scales) if is_trained else g.dequantized_weights(18, 24, scales=scales)
    turned = g.op("Transpose", [weights], perm=[1, 0])
    made = g.op("Add", [g.op("MatMul", [view(g), turned]), g.constant(g.floats(18), "b")])
    return (ROWS, *qdq(g, made, scale=0.05), [])


@case(u8={}, s8={"kind": np.int8})
def quantized_far(g, kind=np.uint8):
    """Values far beyond what the scale reaches give the highest and the lowest."""
    far = g.op("Mul", ["input", g.constant(np.float32(1e30))])
    return (24,), qdq(g, far, kind)[0], CLOSE, []


@case()
def cast_far(g):
    """Whole numbers of more than 32 bits."""
    far = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(2**40))])], to=TensorProto.INT64)
    return (24,), g.op("Cast", [far], to=TensorProto.FLOAT), CLOSE, None


@case(now={}, old={"opset": 11})
def squeezed_whole(g):
    """All axes of size 1 go but the rows, in a model that tract runs for one row at a time."""
    made = g.op("Conv", ["input", g.constant(0.2 * g.floats(5, 8, 3, 3))])
    pooled = g.op("Squeeze", [g.op("GlobalAveragePool", [made])])
    return IMAGE, g.op("Softmax", [pooled], axis=-1), CLOSE, None


# What tract would answer wrongly, or refuse, were it not put into other words of ONNX before.


def in_reverse(g, kind, gates, outputs=3, width=5):
    """Sequences of the rows' 7 elements, from the last to the first."""
    weights = [g.constant(0.3 * g.floats(1, gates * width, size)) for size in (4, width)]
    more = [turned(g, "input", 1, 0, 2), *weights, g.constant(g.floats(1, 2 * gates * width))]
    made = g.op(kind, more, outputs, hidden_size=width, direction="reverse")
    made = made if outputs > 1 else [made]
    orders = [(2, 0, 1, 3), (1, 0, 2), (1, 0, 2)]
    flat = [g.op("Flatten", [turned(g, one, *order)], axis=1) for one, order in zip(made, orders)]
    return (7, 4), flat[0] if outputs == 1 else g.op("Concat", flat, axis=1), CLOSE, None


@case(lstm={"kind": "LSTM", "gates": 4}, gru={"kind": "GRU", "gates": 3, "outputs": 2}, rnn={"kind": "RNN", "gates": 1, "outputs": 1})
def reverse(g, **more):
    return in_reverse(g, **more)


@case()
def reverse_between(g, width=5):
    """In reverse in front of a quantized layer."""
    shape, flat, _, _ = in_reverse(g, "GRU", 3, outputs=1)
    made = g.op("Gemm", [g.qdq(flat, g.params(0.01, 128)), g.dequantized_weights(7 * width, 6)])
    return (shape, *qdq(g, made), ["Transpose", "GRU", "Transpose", "Flatten"])


@case(softmax={"kind": "Softmax"}, log_softmax={"kind": "LogSoftmax"}, softmax_old={"kind": "Softmax", "opset": 12})
def branch_and(g, kind):
    """A branch sends the whole model to tract, with a softmax between two quantizations in it."""
    of = lambda op: helper.make_graph([helper.make_node(op, ["input"], [op + "_in"])], op, [], [helper.make_tensor_value_info(op + "_in", TensorProto.FLOAT, None)])
    taken = g.op("If", [g.constant(np.bool_(True))], then_branch=of("Identity"), else_branch=of("Neg"))
    made = g.op(kind, [g.qdq(taken, g.params(0.02, 128))], axis=-1)
    params, scale = (g.params(1 / 128, 0), 1 / 128) if kind == "Softmax" else (g.params(0.05, 255), 0.05)
    return (6,), g.qdq(made, params), scale, None


@case()
def celu(g):
    return IMAGE, g.op("Add", [g.op("Celu", ["input"], alpha=0.5), g.op("Celu", ["input"], alpha=1.5)]), CLOSE, None


@case(max={"kind": "MaxPool"}, average={"kind": "AveragePool", "opset": 19})
def valid_pool(g, kind):
    """Sizes rounded up where auto_pad says VALID, before what doesn't mind a wrong size."""
    pooled = g.op(kind, ["input"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID", ceil_mode=1)
    return (2, 8, 8), g.op("Mul", [g.op("GlobalAveragePool", [pooled]), g.constant(np.float32(3))]), CLOSE, None


@case(plain={}, scaled={"alpha": 0.5, "beta": 2.0}, turned={"transA": 1, "transB": 1}, no_bias={"alpha": 0.5, "bias": False})
def half_gemm(g, bias=True, **more):
    halves = lambda *shape: g.constant(g.floats(*shape).astype(np.float16))
    shape = (6, 24) if more.get("transB") else (24, 6)
    value = g.op("Cast", ["input"], to=TensorProto.FLOAT16)
    if more.get("transA"):
        value = turned(g, value, 1, 0)
    made = g.op("Gemm", [value, halves(*shape), *([halves(6)] if bias else [])], **more)
    return (24,), g.op("Cast", [made], to=TensorProto.FLOAT), 0.02, None


@case(
    positive={}, mixed={"low": -0.5}, logistic={"low": -0.5, "base": [0.1], "post_transform": "LOGISTIC"},
    logistic_positive={"post_transform": "LOGISTIC"}, based={"base": [0.1]}, three={"labels": [3, 1, 2]},
    at_least={"modes": ("BRANCH_GTE", "BRANCH_GTE")}, at_least_three={"modes": ("BRANCH_GTE", "BRANCH_LT"), "labels": [3, 1, 2]},
)  # fmt: skip
def forest(g, low=0.0, base=None, labels=(7, 4), trees=3, modes=("BRANCH_LEQ", "BRANCH_LT"), **more):
    """Three trees of three leaves, with weights for the first class where there are two."""
    parts = {name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")}
    leaves = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(trees):
        rows = [(modes[0], 1, 2), (modes[1], 3, 4), ("LEAF", 0, 0), ("LEAF", 0, 0), ("LEAF", 0, 0)]
        for node, (mode, yes, no) in enumerate(rows):
            one = [tree, node, int(g.random.integers(4)), mode, float(g.random.uniform(-1, 1)), yes, no]
            for name, value in zip(parts, one):
                parts[name].append(value)
            for class_ in range(1 if len(labels) == 2 else len(labels)) if mode == "LEAF" else ():
                weight = float(g.random.uniform(low, 0.5) / (1 if low else 1.5))
                for name, value in zip(leaves, [tree, node, class_, weight]):
                    leaves[name].append(value)
    attributes = {f"nodes_{name}": values for name, values in parts.items()}
    attributes |= {f"class_{name}": values for name, values in leaves.items()}
    attributes |= {"base_values": base} if base else {}
    label, scores = g.op("TreeEnsembleClassifier", ["input"], 2, classlabels_int64s=list(labels), **attributes, **more)
    label = g.op("Unsqueeze", [g.op("Cast", [label], to=TensorProto.FLOAT), g.constant(np.array([1]))])
    return (4,), g.op("Concat", [label, scores], axis=1), CLOSE, None


@case(each={"offset": [0.5, -1.0, 0.0, 2.0], "scale": [1.5, 0.5, 2.0, 0.25]}, all={"offset": [0.5], "scale": [1.5]})
def scaler(g, **lists):
    return (4,), g.op("Scaler", ["input"], **lists), CLOSE, None


@case()
def scaler_between(g):
    """In front of a quantized layer."""
    scaled = g.op("Scaler", ["input"], offset=[0.5] * 24, scale=[0.8] * 24)
    made = g.op("Gemm", [g.qdq(scaled, g.params(*IN)), g.dequantized_weights(24, 18)])
    return ((24,), *qdq(g, made, scale=0.05), ["Scaler"])


@case(near={}, far={"first": 1 << 40})
def ids(g, first=0):
    """Whole numbers, also beyond f32's, that pick rows of a table in front of a quantized layer."""
    rows = g.op("Gather", [g.constant(g.floats(20, 24)), g.ids(first)], axis=0)
    made = g.op("MatMul", [g.qdq(rows, g.params(0.01, 128)), g.dequantized_weights(24, 18)])
    return ((5,), *qdq(g, made, scale=0.05), ["Sub", "Max", "Gather"])


@case(floor={}, like_dividend={"fmod": 1})
def rest(g, fmod=0):
    """Of negative whole numbers, and by such, behind a Cast."""
    whole = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(7))])], to=TensorProto.INT64)
    by = lambda *values: g.op("Cast", [g.op("Mod", [whole, g.constant(np.array(values))], fmod=fmod)], to=TensorProto.FLOAT)
    far = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(2**40))])], to=TensorProto.INT64)
    far = g.op("Cast", [g.op("Mod", [far, g.constant(np.int64(2**33 + 1))], fmod=fmod)], to=TensorProto.FLOAT)
    return (4,), g.op("Concat", [by(3), by(-3), by(5, -5, 1, -1), far], axis=1), CLOSE, None


@case()
def quotient(g):
    """Of whole numbers behind a Cast."""
    whole = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(7))])], to=TensorProto.INT64)
    by = lambda *values: g.op("Cast", [g.op("Div", [whole, g.constant(np.array(values))])], to=TensorProto.FLOAT)
    far = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(2**50))])], to=TensorProto.INT64)
    far = g.op("Cast", [g.op("Div", [far, g.constant(np.int64(2**33 + 1))])], to=TensorProto.FLOAT)
    return (4,), g.op("Concat", [by(3), by(-3), by(5, -5, 1, -1), far], axis=1), CLOSE, None


@case(inner={"axis": 1}, outer={"axis": 0})
def gathered_back(g, axis):
    """Places that are counted from the end, along the first axis and along another one."""
    table = g.constant(g.floats(20, 6) if axis == 0 else g.floats(6, 20))
    picked = g.op("Gather", [table, back(g)], axis=axis)
    some = g.op("ReduceSum", [g.op("Gather", [table, g.constant(np.array([-1, 2, -20]))], axis=axis)], keepdims=0)
    return (5,), g.op("Add", [picked if axis == 0 else turned(g, picked, 1, 0, 2), some]), CLOSE, None


def back(g):
    return g.op("Sub", [g.ids(0), g.constant(np.int64(20))])


@case(elements={"kind": "GatherElements"}, nd={"kind": "GatherND"})
def gathered(g, kind):
    """Places of each element, or of several axes, counted from the end."""
    if kind == "GatherElements":
        return (5,), g.op(kind, [g.constant(g.floats(20, 5)), back(g)], axis=0), CLOSE, None
    places = g.op("Reshape", [back(g), g.constant(np.array([0, 3, 2]))])
    return (6,), g.op(kind, [g.constant(g.floats(20, 20, 4)), places]), CLOSE, None


@case(elements={"kind": "ScatterElements"}, nd={"kind": "ScatterND"})
def scattered(g, kind):
    """Values that are put to places counted from the end."""
    if kind == "ScatterElements":
        whole = g.op("Sub", [g.op("Ceil", [g.op("Abs", ["input"])]), g.constant(np.float32(4))])
        places = g.op("Cast", [whole], to=TensorProto.INT64)
        made = g.op(kind, [g.op("Neg", ["input"]), places, "input"], axis=1, reduction="add")
        return (5,), made, CLOSE, None
    columns = turned(g, "input", 1, 0)
    some = g.op("Gather", [columns, g.constant(np.array([1, 2]))], axis=0)
    return (5,), turned(g, g.op(kind, [columns, g.constant(np.array([[-1], [-5]])), some]), 1, 0), CLOSE, None


CROPS = {"rows": (0, 0, -1, 2, 0, 0, 1, -3), "both": (0, 0, -2, -1, 0, 0, -1, -2), "channels": (0, -1, 1, 0, 0, 0, 0, -3)}


@case(**{f"{mode}_{name}": {"mode": mode, "pads": pads} for mode in ("constant", "edge", "reflect") for name, pads in CROPS.items()},
      axes={"mode": "constant", "pads": (-1, 3, 2, -2), "axes": (-1, 2), "opset": 18},
      reflect_value={"mode": "reflect", "pads": CROPS["rows"], "value": 0.7},
      edge_value={"mode": "edge", "pads": (3, 2, 2, 2), "axes": (-1, 2), "opset": 18, "value": 0.7})  # fmt: skip
def cropping_pad(g, mode, pads, axes=None, value=None):
    """Negative pads, in front of a convolution that needs the size; a value that the mode has no use for."""
    more = [g.constant(np.float32(value or 0.7))] if mode == "constant" or value else [""]
    more += [g.constant(np.array(axes))] if axes else []
    made = g.op("Pad", ["input", g.constant(np.array(pads)), *(more if any(more) else [])], mode=mode)
    channels = 8 - (1 if pads[1] == -1 and not axes else 0)
    made = g.op("Conv", [made, g.constant(0.2 * g.floats(2, channels, 3, 3))])
    return IMAGE, made, CLOSE, None


@case(smaller={"output_shape": [12, 11]}, smallest={"output_shape": [5, 8], "strides": [1, 2]}, larger={"output_shape": [14, 14]},
      same={"output_shape": [12, 10], "auto_pad": "SAME_UPPER"}, same_lower={"output_shape": [12, 10], "auto_pad": "SAME_LOWER"},
      padded={"output_shape": [13, 12], "output_padding": [1, 1]}, beside_pads={"output_shape": [12, 10], "pads": [2, 0, 0, 1]},
      equal={"output_shape": [13, 13]}, beside_pads_equal={"output_shape": [13, 13], "pads": [1, 0, 0, 1]})  # fmt: skip
def sized_transposed(g, strides=(2, 2), **more):
    """A transposed convolution whose output's size is given."""
    weights = [g.constant(0.2 * g.floats(8, 4, 3, 3)), g.constant(g.floats(4))]
    return IMAGE, g.op("ConvTranspose", ["input", *weights], kernel_shape=[3, 3], strides=strides, **more), CLOSE, None


@case()
def unnamed(g):
    """A node without a name, and one that is called as what it makes."""
    first, second = g.op("Sigmoid", ["input"]), g.op("Tanh", ["input"])
    g.nodes[-2].name, g.nodes[-1].name = "", first
    return (4,), g.op("Add", [first, second]), CLOSE, None


@case(
    clip=lambda g, n: g.op("Clip", [n, g.constant(np.int64(0)), g.constant(np.int64(FAR))]),
    least=lambda g, n: g.op("Min", [n, g.constant(np.array([FAR]))]),
    most=lambda g, n: g.op("Max", [n, g.constant(np.array([-FAR]))]),
    sum=lambda g, n: g.op("Add", [n, g.constant(np.array([1 << 40]))]),
    product=lambda g, n: g.op("Mul", [n, g.constant(np.array([1 << 20]))]),
    listed=lambda g, n: g.op("Concat", [n, g.op("Min", [n, g.constant(np.array([FAR]))])], axis=1),
    chosen=lambda g, n: g.op("Where", [g.op("Less", [n, g.constant(np.array([1 << 32]))]), n, g.constant(np.array([1 << 41]))]),
)
def beside_far(g, make):
    """Floats that become whole numbers beside constants of more than 32 bits. They themselves have less: of more than
    2^31 ONNX Runtime 1.31 takes 0 for the larger one."""
    whole = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(1 << 29))])], to=TensorProto.INT64)
    made = g.op("Cast", [make(g, whole)], to=TensorProto.FLOAT)
    return (6,), g.op("Mul", [made, g.constant(np.float32(2.0**-31))]), CLOSE, None


@case(sum={"kind": "ReduceSum"}, mean={"kind": "ReduceMean"}, sizes={"kind": "ReduceL1"})
def far(g, kind):
    """Sums of whole numbers whose sum doesn't fit into 32 bits, though they do."""
    g.whole_from = 1 << 28
    return far_reduced(g, "input", kind)


@case(sum={"kind": "ReduceSum"}, mean={"kind": "ReduceMean"})
def cast_far_reduced(g, kind):
    whole = g.op("Cast", [g.op("Mul", [g.op("Abs", ["input"]), g.constant(np.float32(1 << 28))])], to=TensorProto.INT64)
    return far_reduced(g, whole, kind)


def far_reduced(g, whole, kind):
    axes = {"axes": [1]} if kind != "ReduceSum" else {}
    more = [] if axes else [g.constant(np.array([1]))]
    made = g.op(kind, [whole, *more], keepdims=1, **axes)
    return (14,), g.op("Mul", [g.op("Cast", [made], to=TensorProto.FLOAT), g.constant(np.float32(2.0**-28))]), CLOSE, None


@case(last={"axis": -1}, first={"axis": 1})
def one_or_none_hot(g, axis):
    """Places from -5 to 5, of three."""
    places = g.op("Cast", [g.op("Mul", ["input", g.constant(np.float32(2))])], to=TensorProto.INT64)
    values = g.constant(np.array([-1, 4], np.float32))
    return (6,), g.op("OneHot", [places, g.constant(np.int64(3)), values], axis=axis), CLOSE, None


@case(lstm={"kind": "LSTM", "gates": 4}, gru={"kind": "GRU", "gates": 3}, rnn={"kind": "RNN", "gates": 1})
def half_recurrent(g, kind, gates, width=5):
    """In f16, from a state that isn't given."""
    halves = lambda *shape: g.constant(g.floats(*shape).astype(np.float16))
    value = turned(g, g.op("Cast", ["input"], to=TensorProto.FLOAT16), 1, 0, 2)
    weights = [halves(1, gates * width, 4), halves(1, gates * width, width), halves(1, 2 * gates * width)]
    made = g.op(kind, [value, *weights], hidden_size=width)
    flat = g.op("Flatten", [turned(g, made, 2, 0, 1, 3)], axis=1)
    return (7, 4), g.op("Cast", [flat], to=TensorProto.FLOAT), 0.005, None


@case(opset=21)
def half_quantized(g):
    """A quantized layer whose scales and bias are f16."""
    halves = lambda value: g.constant(np.float16(value))
    to_half = lambda value: g.op("Cast", [value], to=TensorProto.FLOAT16)
    value = g.op("QuantizeLinear", [to_half("input"), halves(IN[0]), g.constant(np.uint8(IN[1]))])
    value = g.op("DequantizeLinear", [value, halves(IN[0]), g.constant(np.uint8(IN[1]))])
    weights = g.op("DequantizeLinear", [g.constant(g.integers(np.int8, 12, 8, 3, 3)), halves(0.004), g.constant(np.int8(0))])
    made = g.op("Conv", [value, weights, g.constant(g.floats(12).astype(np.float16))], pads=[1] * 4)
    made = g.op("QuantizeLinear", [made, halves(OUT[0]), g.constant(np.uint8(OUT[1]))])
    made = g.op("DequantizeLinear", [made, halves(OUT[0]), g.constant(np.uint8(OUT[1]))])
    # ONNX Runtime rounds the result to f16.
    return IMAGE, g.op("Cast", [made], to=TensorProto.FLOAT), 0.031, []


@case(inner={}, inner_old={"opset": 11})
def qlinear_softmax_axis(g):
    """Not over the last axis; before opset 13 that is over all from the named one on."""
    last = g.params(1 / 256, 0)
    value, params = entry(g)
    made = g.op("QLinearSoftmax", [value, *params, *last], axis=1, opset=g.opset)
    return ROWS, g.dequantize(made, last), 1 / 256, ["QLinearSoftmax"]


@case(last={}, first={"axis": 1}, old={"opset": 11})
def log_softmax_far(g, axis=-1):
    """Scores that lie farther apart than f32 can hold shares."""
    far = g.op("Mul", ["input", g.constant(np.float32(60))])
    return ROWS, g.op("LogSoftmax", [far], axis=axis), 0.001, None


@case(average={"kind": "QLinearAveragePool", "more": {"kernel_shape": [2, 2, 2]}}, global_={"kind": "QLinearGlobalAveragePool"})
def qlinear_pool_3d(g, kind, more=None):
    value, params = entry(g)
    to = exit_params(g, scale=0.01)
    return (3, 4, 5, 6), g.dequantize(g.op(kind, [value, *params, *to], **(more or {})), to), 0.01, [kind]


@case(add={"kind": "QLinearAdd"}, softmax={"kind": "QLinearSoftmax"}, gemm={"kind": "QGemm"}, gemm_channel={"kind": "QGemm", "scales": 18},
      gemm_turned_old={"kind": "QGemm", "scales": 18, "turned": 1, "opset": 11})
def branch_qlinear(g, kind, scales=1, turned=0):
    """A branch sends the whole model to tract, with an operator in it that tract doesn't have."""
    of = lambda op: helper.make_graph([helper.make_node(op, ["input"], [op + "_in"])], op, [], [helper.make_tensor_value_info(op + "_in", TensorProto.FLOAT, None)])
    taken = g.op("If", [g.constant(np.bool_(True))], then_branch=of("Identity"), else_branch=of("Neg"))
    params, to = g.params(*IN), g.params(1 / 256, 0) if kind == "QLinearSoftmax" else exit_params(g)
    value = g.quantize(taken, params)
    if kind == "QGemm":
        weights = g.weights(*(18, 24) if turned else (24, 18), scales=scales, axis=1 - turned)
        bias = g.constant(g.random.integers(-9000, 9000, 18).astype(np.int32))
        made = g.op(kind, [value, *params, *weights, bias, *to], transB=turned, alpha=0.5)
    elif kind == "QLinearAdd":
        made = g.op(kind, [value, *params, value, *params, *to])
    else:
        made = g.op(kind, [value, *params, *to], axis=-1, opset=g.opset)
    return (24,), g.dequantize(made, to), 1 / 256 if kind == "QLinearSoftmax" else OUT[0], None


@case(u8={}, s8={"kind": np.int8})
def bytes_split(g, kind=np.uint8):
    """8-bit values that are taken apart; of one part only another order of its axes is read, which doesn't say its scale."""
    value, params = entry(g, kind)
    first, second, _ = g.op("Split", [value, g.constant(np.array([2, 2, 1], np.int64))], 3, axis=1)
    to = exit_params(g, kind)
    product = g.op("QLinearMatMul", [first, *params, *g.weights(24, 24), *to])
    second = turned(g, turned(g, second, 0, 2, 1), 0, 2, 1)
    added = g.op("QLinearAdd", [product, *to, second, *params, *to])
    return ROWS, g.dequantize(added, to), OUT[0], []


@case()
def pooled_branch(g):
    """What an image is like on the whole, beside each of its pixels: heads of segmentation nets."""
    conv = lambda value, outs, ins: g.op("Relu", [g.op("Conv", [value, g.constant(g.floats(outs, ins, 1, 1)), g.constant(g.floats(outs))])])
    wide = conv("input", 6, 8)
    whole = conv(g.op("GlobalAveragePool", [wide]), 4, 6)
    spread = g.op("Expand", [whole, g.constant(np.array([1, 4, 6, 6], np.int64))])
    made = conv(g.op("Concat", [wide, spread], axis=1), 5, 10)
    return IMAGE, g.op("Flatten", [g.op("GlobalAveragePool", [made])], axis=1), 1e-4, None


@case(quantized={"kind": "DynamicQuantizeMatMul"}, product={"kind": "MatMulIntegerToFloat"})
def dynamic_other_weights(g, kind):
    """Weights that int8 doesn't know: made of another input."""
    params = g.params(0.01, 120)
    shape = g.constant(np.array([24, 18]))
    weights = g.quantize(g.op("Reshape", [g.second_input(1, 24 * 18), shape]), params)
    bias = g.constant(g.floats(18))
    if kind == "DynamicQuantizeMatMul":
        return ROWS, g.op(kind, ["input", weights, *params, bias]), CLOSE, [kind, "Identity"]
    value, scale, zero = g.op("DynamicQuantizeLinear", ["input"], 3)
    return ROWS, g.op(kind, [value, weights, scale, params[0], zero, params[1], bias]), CLOSE, ["DynamicQuantizeLinear", kind, "Identity"]


@case(u8={"kind": np.uint8}, s8={"scales": 18}, other_scale={"is_other": True})
def dynamic_to_float(g, kind=np.int8, scales=1, is_other=False):
    """The other scale is not the one by which the rows were quantized."""
    value, scale, zero = g.op("DynamicQuantizeLinear", ["input"], 3)
    weights, own_scale, own_zero = g.weights(24, 18, kind=kind, scales=scales)
    scale = g.constant(np.float32(0.5)) if is_other else scale
    return ROWS, g.op("MatMulIntegerToFloat", [value, weights, scale, own_scale, zero, own_zero]), 20 * CLOSE if is_other else CLOSE, None if is_other else []


@case(add={"kind": "Add", "scales": (1e28, 1e-12)}, mul={"kind": "Mul", "scales": (1e20, 1e-12)}, average={"kind": "AveragePool", "scales": (1e28, 1e-12)})
def far_scales_as_written(g, kind, scales):
    """Scales whose quotient is beyond f32: in 8 bits, zero times that is no number, and ONNX Runtime's optimised sums and
    products give the lowest value for it."""
    value = g.qdq("input", g.params(scales[0], 128))
    inputs, more = ([value], {"kernel_shape": [2, 2]}) if kind == "AveragePool" else ([value, value], {})
    made = g.qdq(g.op(kind, inputs, **more), g.params(scales[1], 128))
    return IMAGE, made, scales[1], [kind] if more else []


@case()
def channels_last_3d(g):
    """Of three axes of pixels, which int8 doesn't know."""
    value, params = entry(g)
    to = exit_params(g)
    inputs = [turned(g, value, 0, 2, 3, 4, 1), *params, *g.weights(6, 3, 3, 3, 3), *to]
    made = g.op("ContribQLinearConv", inputs, pads=[1] * 6, kernel_shape=[3] * 3, channels_last=1)
    return (3, 4, 5, 6), g.dequantize(turned(g, made, 0, 4, 1, 2, 3), to), OUT[0], ["QLinearConv", "Transpose"]


def clipped(g, value, low, high):
    """Bounds were attributes once."""
    bounds = {"min": low, "max": high} if g.opset < 11 else {}
    return g.op("Clip", [value, *(g.constant(np.float32(bound)) for bound in (() if bounds else (low, high)))], **bounds)


def reaxed(g, kind, value, axis):
    """So were axes."""
    if g.opset < 13:
        return g.op(kind, [value], axes=[axis])
    return g.op(kind, [value, g.constant(np.array([axis], np.int64))])


def flat(g, value):
    return g.op("Flatten", [value], axis=1)


@case(**{str(opset): {"opset": opset} for opset in OPSETS})
def opset_qdq(g):
    """What int8 knows of QDQ, side by side, so that each result is but one layer from the input."""
    ints = lambda *values: g.constant(np.array(values, np.int64))
    image = view(g)
    # A scale for each channel is there since DequantizeLinear has an axis.
    many = lambda count: {"scales": count} if g.opset >= 13 else {}
    conv = g.op("Conv", [image, g.dequantized_weights(6, 8, 3, 3, **many(6)), g.bias(6, IN[0])], pads=[1] * 4, strides=[2, 2])
    depthwise = g.op("Conv", [image, g.dequantized_weights(8, 1, 3, 3, **many(8))], group=8)
    other = g.qdq(g.op("Identity", ["input"]), g.params(0.03, 100))
    rows = g.qdq(flat(g, g.op("GlobalAveragePool", [image])), exit_params(g, scale=0.01))
    made = [
        g.op("Relu", [conv]),
        clipped(g, depthwise, -0.5, 0.9),
        g.op("MaxPool", [image], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        g.op("AveragePool", [image], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1),
        g.op("Add", [image, other]),
        g.op("Mul", [image, other]),
        g.op("Concat", [image, other], axis=1),
        g.op("Sigmoid", [image]),
        g.op("LeakyRelu", [image], alpha=0.3),
        g.op("Tanh", [image]),
        clipped(g, image, 0.0, 0.7),
        g.op("Transpose", [image], perm=[0, 2, 3, 1]),
        g.op("Reshape", [image, ints(0, 4, -1)]),
        g.op("Slice", [image, ints(2, 1), ints(6, 5), ints(1, 3)]),
        reaxed(g, "Squeeze", reaxed(g, "Unsqueeze", image, 1), 1),
        g.op("Gemm", [rows, g.dequantized_weights(8, 12), g.bias(12, 0.01)]),
        g.op("MatMul", [rows, g.dequantized_weights(8, 7)]),
    ]
    if g.opset >= 11:
        scales = [g.constant(np.zeros(0, np.float32)), g.constant(np.array([1, 1, 2, 2], np.float32))]
        made.append(g.op("Resize", [image, *scales], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"))
    if g.opset >= 14:
        made.append(g.op("HardSwish", [image]))
    to = exit_params(g)
    return IMAGE, flat(g, g.qdq(g.op("Concat", [flat(g, g.qdq(one, to)) for one in made], axis=1), to)), OUT[0], []


@case(**{str(opset): {"opset": opset} for opset in OPSETS})
def opset_qoperator(g):
    """The same of operators on 8-bit values."""
    value, params = entry(g)
    to, rows_to = exit_params(g), exit_params(g, scale=0.01)
    conv = g.op("QLinearConv", [value, *params, *g.weights(6, 8, 3, 3, scales=6), *to], pads=[1] * 4, strides=[2, 2])
    rows = flat(g, g.op("QLinearGlobalAveragePool", [value, *params, *rows_to]))
    made = [
        conv,
        g.op("QLinearAdd", [value, *params, value, *params, *to]),
        g.op("QLinearLeakyRelu", [value, *params, *to], alpha=0.3),
        g.op("QLinearMatMul", [rows, *rows_to, *g.weights(8, 7), *to]),
        g.op("QGemm", [rows, *rows_to, *g.weights(8, 12), g.constant(g.random.integers(-900, 900, 12).astype(np.int32)), *to]),
    ]
    parts = [part for one in made for part in (flat(g, one), *to)]
    return IMAGE, g.dequantize(g.op("QLinearConcat", [*to, *parts], axis=1), to), OUT[0], []


@case(**{str(opset): {"opset": opset} for opset in OPSETS})
def opset_signed(g):
    """Signed throughout, with the result of the last layer in f32."""
    first, _ = qdq(g, g.op("Relu", [g.op("Conv", [view(g, np.int8), g.dequantized_weights(6, 8, 3, 3)])]), np.int8)
    pooled = g.qdq(g.op("GlobalAveragePool", [first]), exit_params(g, np.int8, 0.01))
    rows = g.qdq(flat(g, pooled), exit_params(g, np.int8, 0.01))
    return IMAGE, g.op("Softmax", [g.op("Gemm", [rows, g.dequantized_weights(6, 5), g.bias(5, 0.01, True)])], axis=-1), 0.01, []


def heads(g, value, *perm):
    """Rows of 24 as rows of 6 for each of four heads, in another order."""
    return g.op("Transpose", [g.op("Reshape", [value, g.constant(np.array([0, 0, 4, 6]))])], perm=perm)


def together(g, value):
    turned_back = g.op("Transpose", [value], perm=[0, 2, 1, 3])
    return g.op("Reshape", [turned_back, g.constant(np.array([0, 0, 24]))])


@case(u8={}, s8={"acts": np.int8})
def qdq_attention(g, acts=np.uint8):
    """Products of two activations, the first by one that is turned, with a mask and a softmax between them."""
    value = view(g, acts)
    scores, _ = qdq(g, g.op("MatMul", [heads(g, value, 0, 2, 1, 3), heads(g, value, 0, 2, 3, 1)]), acts, 0.2)
    scaled, _ = qdq(g, g.op("Div", [scores, g.constant(np.float32(2.5))]), acts, 0.08)
    masked = g.op("Add", [scaled, g.constant(g.floats(1, 1, 1, 5))])
    shares = g.qdq(g.op("Softmax", [masked], axis=-1), g.params(1 / 255, 0))
    made, scale = qdq(g, g.op("MatMul", [shares, heads(g, value, 0, 2, 1, 3)]), acts, 0.04)
    return ROWS, together(g, made), scale, []


@case(u8={}, s8={"acts": np.int8})
def qlinear_product(g, acts=np.uint8):
    value, params = entry(g, acts)
    to = exit_params(g, acts, 0.2)
    operands = [heads(g, value, *perm) for perm in [(0, 2, 1, 3), (0, 2, 3, 1)]]
    made = g.op("QLinearMatMul", [operands[0], *params, operands[1], *params, *to])
    return ROWS, g.dequantize(made, to), 0.2, []


@case(numbers={"shape": ()}, columns={"shape": (6, 1)}, same={"shape": (8, 6, 6)})
def qlinear_with(g, shape):
    """A sum, then a product with a constant."""
    value, params = entry(g)
    for kind in ["QLinearAdd", "QLinearMul"]:
        to = g.params(OUT[0], OUT[1])
        other = [g.constant(g.integers(np.uint8, *shape)), *g.params(0.009, 100)]
        value, params = g.op(kind, [value, *params, *other, *to]), to
    return IMAGE, g.dequantize(value, params), 2 * OUT[0], []


def normalized(g, value, size, is_spelled):
    """LayerNormalization, or the nodes that torch writes for it."""
    scale, bias = [g.constant(g.floats(size)) for _ in range(2)]
    if not is_spelled:
        return g.op("LayerNormalization", [value, scale, bias], axis=-1)
    mean = lambda of: g.op("ReduceMean", [of], axes=[-1], keepdims=1)
    centred = g.op("Sub", [value, mean(value)])
    variance = mean(g.op("Pow", [centred, g.constant(np.float32(2))]))
    root = g.op("Sqrt", [g.op("Add", [variance, g.constant(np.float32(1e-5))])])
    return g.op("Add", [g.op("Mul", [g.op("Div", [centred, root]), scale]), bias])


def gelu(g, value):
    """The nodes that torch writes for it."""
    one, half, root = [g.constant(np.float32(number)) for number in (1, 0.5, np.sqrt(2))]
    erf = g.op("Erf", [g.op("Div", [value, root])])
    return g.op("Mul", [g.op("Mul", [value, g.op("Add", [erf, one])]), half])


@case(plain={}, spelled={"is_spelled": True, "opset": 16})
def qdq_norm(g, is_spelled=False):
    """A normalization behind a layer, and a function of each value that several nodes make."""
    made = normalized(g, layer(g), 18, is_spelled)
    return ROWS, g.op("MatMul", [g.qdq(gelu(g, made), g.params(0.02, 20)), g.dequantized_weights(18, 7)]), 0.05, []


@case(plain={}, spelled={"is_spelled": True, "opset": 16})
def dynamic_norm(g, is_spelled=False):
    value = gelu(g, normalized(g, "input", 24, is_spelled))
    weights = g.weights(24, 18)
    return ROWS, g.op("DynamicQuantizeMatMul", [value, *weights]), 20 * CLOSE, []


@case()
def qdq_functions(g):
    """A function that four nodes make of each value, in one table."""
    value = g.op("Erf", [g.op("Div", [view(g), g.constant(np.float32(1.4))])])
    value = g.op("Pow", [g.op("Sub", [g.constant(np.float32(2)), value]), g.constant(np.float32(2))])
    return (IMAGE, *qdq(g, g.op("Sqrt", [value])), [])


@case()
def plain_arithmetic(g):
    """In f32 between two layers: with a number, a row, a column, and one value for each row."""
    made = layer(g)
    column = g.constant(g.floats(5, 1))
    made = g.op("Div", [g.op("Sub", [column, made]), g.constant(np.float32(1.5))])
    made = g.op("Mul", [g.op("Sub", [made, g.constant(g.floats(18))]), column])
    made = g.op("Sub", [made, g.op("ReduceMean", [made], axes=[2], keepdims=1)])
    made = g.op("Add", [g.op("Tanh", [made]), g.op("Sigmoid", [made])])
    return ROWS, g.op("MatMul", [g.qdq(made, g.params(0.02, 100)), g.dequantized_weights(18, 7)]), 0.03, []


@case(image={}, signal={"shape": SIGNAL}, old={"opset": 12})
def qdq_batch_norm(g, shape=IMAGE):
    """One that no tool has folded, between two quantizations and behind the last."""
    def normal(value):
        spread = g.constant(g.random.uniform(0.5, 2, shape[0]).astype(np.float32))
        lists = [g.constant(g.floats(shape[0])) for _ in range(3)]
        return g.op("BatchNormalization", [value, *lists, spread])

    made, scale = qdq(g, g.op("Relu", [normal(view(g))]))
    return shape, normal(made), 2 * scale, []


def size(g, value, axis):
    """One of a value's sizes, as a list of one."""
    return g.op("Gather", [g.op("Shape", [value]), g.constant(np.array([axis]))], axis=0)


def island_rows(g):
    """Rows through a layer and a function that tract runs."""
    return g.op("Sin", [layer(g)])


@case()
def island_once(g):
    """Beside the rows an island gives out a part of a table, picked by the rows' size: once, however many rows it has."""
    value = island_rows(g)
    single = lambda number: g.constant(np.int64(number))
    length = g.op("Squeeze", [size(g, value, 1), g.constant(np.array([0]))])
    places = g.op("Unsqueeze", [g.op("Range", [single(0), length, single(1)]), g.constant(np.array([0]))])
    part = g.op("Gather", [g.constant(g.floats(9, 18)), places], axis=0)
    total = g.op("Add", [g.qdq(value, g.params(0.01, 128)), g.qdq(part, g.params(0.01, 120))])
    left = ["Sin", "Shape", "Gather", "Squeeze", "Range", "Unsqueeze", "Gather"]
    return (ROWS, *qdq(g, total, scale=0.02), left)


@case(noted={}, factor={"of_constant": True}, product={"all_of_it": True}, from_start={"start": 0}, from_end={"start": -1, "end": 9})
def sizes_quantized(g, of_constant=False, all_of_it=False, **part):
    """Half of a width, rounded up and doubled, that a quantizer took for an activation."""
    small, two = g.params(24 / 255, 0), g.constant(np.float32(2))
    if of_constant:
        two = g.dequantize(g.constant(np.uint8(255)), g.params(2 / 255, 0))
    value, scale = qdq(g, g.op("MatMul", [view(g), g.dequantized_weights(24, 18)]), scale=0.05)
    width = g.op("Gather", [g.op("Shape", [value], **part), g.constant(np.int64(0 if part.get("start") else 2))], axis=0)
    half = g.qdq(g.op("Ceil", [g.op("Div", [g.op("Cast", [width], to=TensorProto.FLOAT), two])]), small)
    whole = g.op("Mul", [half, two])
    whole = g.qdq(whole, small) if all_of_it else whole
    rounded = g.op("Cast", [g.op("Round", [whole])], to=TensorProto.INT64)
    sizes = [g.constant(np.array([0])), g.constant(np.array([-1])), g.op("Unsqueeze", [rounded, g.constant(np.array([0]))])]
    rows = g.op("Reshape", [value, g.op("Concat", sizes, axis=0)])
    return (ROWS, *qdq(g, g.op("MatMul", [rows, g.dequantized_weights(18, 7)]), scale=0.05), [])


@case()
def sizes_passed_on(g):
    """Sizes that are worked out in whole numbers by so many nodes that no island makes them all again for the next."""
    value, one = island_rows(g), g.constant(np.array([1]))
    last = size(g, value, 2)
    for _ in range(70):
        last = g.op("Cast", [g.op("Sub", [g.op("Add", [last, one]), one])], to=TensorProto.INT64)
    to = g.op("Concat", [g.constant(np.array([0, -1])), last], axis=0)
    value = g.qdq(value, g.params(0.01, 128))
    for _ in range(4):
        rows = g.op("Sin", [g.op("Reshape", [value, to])])
        made, scale = qdq(g, g.op("MatMul", [g.qdq(rows, g.params(0.01, 128)), g.dequantized_weights(18, 18)]), scale=0.01)
        value = made
    return ROWS, value, scale, ["Sin"] * 5


@case()
def mask_picked(g):
    """What is masked is read from all rows' masks in one list, by the number of the row and of the place in it."""
    value, single = island_rows(g), lambda number: g.constant(np.int64(number))
    mask = g.op("Greater", [g.op("ReduceMax", ["input"], axes=[2], keepdims=0), g.constant(np.float32(2.3))])
    scalar = lambda axis: g.op("Squeeze", [size(g, mask, axis), g.constant(np.array([0]))])
    count = lambda axis: g.op("Range", [single(0), scalar(axis), single(1)])
    rows = g.op("Mul", [g.op("Unsqueeze", [count(0), g.constant(np.array([1]))]), scalar(1)])
    places = g.op("Add", [rows, g.op("Unsqueeze", [count(1), g.constant(np.array([0]))])])
    flat = g.op("Reshape", [g.op("Cast", [mask], to=TensorProto.FLOAT), g.constant(np.array([-1]))])
    picked = g.op("Unsqueeze", [g.op("Gather", [flat, places], axis=0), g.constant(np.array([2]))])
    made = g.op("MatMul", [g.qdq(g.op("Mul", [value, picked]), g.params(0.01, 128)), g.dequantized_weights(18, 7)])
    left = ["Sin", "ReduceMax", "Greater", "Shape", "Gather", "Squeeze", "Range", "Unsqueeze", "Shape", "Gather"]
    left += ["Squeeze", "Mul", "Shape", "Gather", "Squeeze", "Range", "Unsqueeze", "Add", "Cast", "Reshape", "Gather"]
    return (ROWS, *qdq(g, made, scale=0.02), [*left, "Unsqueeze", "Mul"])


@case()
def rows_elsewhere(g):
    """The rows are the second axis where int8 and tract meet, and an operator that no rule follows is before that."""
    value = g.op("Shrink", [island_rows(g)], lambd=0.1)
    turned = g.op("Sin", [g.op("Transpose", [value], perm=[1, 0, 2])])
    made, scale = qdq(g, g.op("MatMul", [g.qdq(turned, g.params(0.01, 128)), g.dequantized_weights(18, 18)]), scale=0.01)
    back = g.op("Transpose", [g.op("Sin", [made])], perm=[1, 0, 2])
    return ROWS, back, scale, ["Sin", "Shrink", "Transpose", "Sin", "Sin", "Transpose", "Identity"]


@case(
    qdq={}, s8={"acts": np.int8}, depthwise={"group": 20}, strided={"pads": (0, 0, 0, 0, 0, 0, 1, 1), "more": {"strides": [2, 2]}},
    padded_too={"more": {"pads": [1, 0, 2, 1]}}, causal={"shape": (20, 11), "pads": (0, 0, 4, 0, 0, 0), "more": {"dilations": [2]}},
    pointwise={"window": 1}, read_twice={"is_read_twice": True}, axes={"pads": (1, 2, 0, 1), "axes": (-1, 2), "opset": 18},
)  # fmt: skip
def qdq_pad(g, shape=(20, 9, 7), acts=np.uint8, group=1, pads=(0, 0, 1, 0, 0, 0, 2, 3), axes=None, window=3, is_read_twice=False, more=None):
    """Zeros around an image between two quantizations by one scale, in front of a convolution."""
    params = g.params(IN[0], IN[1] if acts == np.uint8 else -3, acts)
    extra = [g.constant(np.array(pads)), g.constant(np.float32(0)), *([g.constant(np.array(axes))] if axes else [])]
    made = g.qdq(g.op("Pad", [g.qdq("input", params), *extra]), params)
    weights = g.dequantized_weights(20, 20 // group, *[window] * (len(shape) - 1))
    conv, _ = qdq(g, g.op("Conv", [made, weights], group=group, **(more or {})), acts)
    if is_read_twice:
        conv = g.op("Add", [conv, g.op("MaxPool", [made], kernel_shape=[3, 3])])
    return (shape, *qdq(g, conv, acts), [])


@case(u8={}, s8={"acts": np.int8}, other_value={"value": 3, "left": ["Pad"]}, edge={"mode": "edge", "left": ["Pad"]},
      channels={"pads": (0, 1, 1, 0, 0, 1, 0, 1), "left": ["Pad"]}, cropped={"pads": (0, 0, -1, 0, 0, 0, 0, 2), "left": ["Pad"]})  # fmt: skip
def qlinear_pad(g, acts=np.uint8, pads=(0, 0, 0, 1, 0, 0, 2, 1), value=None, mode="constant", left=()):
    """The same on 8-bit values, whose zero is the zero point."""
    image, params = entry(g, acts)
    zero = [params[1] if value is None else g.constant(acts(value))] if mode == "constant" else []
    made = g.op("Pad", [image, g.constant(np.array(pads)), *zero], mode=mode)
    to = exit_params(g, acts)
    channels = 8 + pads[1] + pads[5]
    made = g.op("QLinearConv", [made, *params, *g.weights(12, channels, 3, 3), *to], strides=[2, 1])
    return IMAGE, g.dequantize(made, to), OUT[0], list(left)


@case(
    channels={"sizes": (5, 18, 3)}, rows={"shape": (8, 10, 6), "axis": 2, "sizes": (4, 3, 3), "left": ["Concat"]}, columns={"axis": -1, "sizes": (2, 3, 1), "shape": IMAGE},
    signal={"shape": (26, 9), "sizes": (16, 7, 3)}, tokens={"shape": (7, 40), "axis": 2, "sizes": (17, 20, 3)},
    tokens_apart={"shape": (7, 40), "sizes": (1, 4, 2)}, s8={"sizes": (1, 1, 24), "acts": np.int8},
    counted={"shape": (20, 5, 5), "sizes": None, "opset": 18}, old={"sizes": (5, 18, 3), "opset": 11},
)  # fmt: skip
def qdq_split(g, sizes, shape=(26, 5, 5), axis=1, acts=np.uint8, left=()):
    """Parts of 8-bit values, each with a border of its own: a convolution and a pool with padding read them."""
    value, params = entry(g, acts)
    more = {"num_outputs": 3} if sizes is None else {"split": sizes} if g.opset < 13 else {}
    extra = [g.constant(np.array(sizes))] if sizes and g.opset >= 13 else []
    parts = g.op("Split", [value, *extra], 3, axis=axis, **more)
    parts = [g.op("Sigmoid", [g.dequantize(part, params)]) for part in parts]
    parts = [g.qdq(part, exit_params(g, acts, 1 / 100)) for part in parts]
    return (shape, *qdq(g, g.op("Concat", parts[::-1], axis=axis), acts, 1 / 100), list(left))


@case()
def split_residual(g):
    """Res2Net's block: each part goes through a layer together with the one before it."""
    value, params = entry(g)
    first, second, third = g.op("Split", [value, g.constant(np.array([10, 10, 10]))], 3, axis=1)
    layer = lambda part: g.op("QLinearConv", [part, *params, *g.weights(10, 10, 3, 3), *params], pads=[1] * 4)  # noqa: E731
    second = layer(second)
    third = layer(g.op("QLinearAdd", [second, *params, third, *params, *params]))
    parts = [part for made in (first, second, third) for part in (made, *params)]
    return (30, 6, 6), g.dequantize(g.op("QLinearConcat", [*params, *parts], axis=1), params), IN[0], []


@case(kept={}, left_out={"keepdims": 0}, signed={"acts": np.int8, "keepdims": 0}, counted_back={"axes": (-1, 2)},
      to_f32={"is_float": True, "keepdims": 0}, newer={"opset": 18, "keepdims": 0})  # fmt: skip
def mean_of_pixels(g, axes=(2, 3), keepdims=1, acts=np.uint8, is_float=False):
    extra = {"axes": list(axes)} if g.opset < 18 else {}
    inputs = [view(g, acts)] + ([g.constant(np.array(axes))] if g.opset >= 18 else [])
    made = g.op("ReduceMean", inputs, keepdims=keepdims, **extra)
    return ((19, 6, 5), made, CLOSE, []) if is_float else ((19, 6, 5), *qdq(g, made, acts, 0.01), [])


@case(
    plain={}, s8={"acts": np.int8}, bounded={"clip": (0.0, 6.0)}, multiplied={"each": 2}, bias_in_steps={"in_steps": True}, strided={"more": {"strides": [2, 2]}},
    bounds_differ={"clip": (-0.3, 0.4)}, far_bias={"far": 1e7, "left": ["Conv", "Relu"]}, hard_swish={"before": "HardSwish"},
    silu={"before": "Silu"}, silu_s8={"before": "Silu", "acts": np.int8}, hard_gate={"before": "HardGate"}, pixel={"before": "Silu", "shape": (8, 1, 1)},
    silu_as_written={"before": "Silu", "is_quantized": True},
)  # fmt: skip
def scales_of_channels(g, acts=np.uint8, clip=None, before="Relu", is_quantized=False, shape=IMAGE, each=1, in_steps=False, far=0, more=None, left=()):
    """NNCF quantizes what a depthwise convolution reads by channel."""
    weights = g.dequantized_weights(13, 8, 3, 3, scales=13)
    bias = g.bias(13, IN[0], in_steps)
    made = g.op("Conv", [view(g, acts), weights, bias], pads=[1] * 4)
    bounds = [g.constant(np.float32(bound)) for bound in clip] if clip else []
    if is_quantized:
        made, _ = qdq(g, made, acts)
    if before == "Silu":
        made = g.op("Mul", [made, g.op("Sigmoid", [made])])
    elif before == "HardGate":
        made = g.op("Mul", [g.op("HardSigmoid", [made], alpha=1 / 6, beta=0.5), made])
    else:
        made = g.op("Clip", [made, *bounds]) if clip else g.op(before, [made])
    scales = g.random.uniform(0.004, 0.02, 13).astype(np.float32)
    params = [g.constant(scales, "scale"), g.constant(np.full(13, -128 if acts == np.int8 else 0, acts), "zero")]
    for kind in ["QuantizeLinear", "DequantizeLinear"]:
        made = g.op(kind, [made, *params], axis=1)
    weights = g.dequantized_weights(13 * each, 1, 3, 3, scales=13 * each)
    bias = g.floats(13 * each)
    bias[0] += far
    made = g.op("Conv", [made, weights, g.constant(bias, "b")], pads=[1] * 4, group=13, **(more or {}))
    return (shape, *qdq(g, g.op("Relu", [made]), acts), list(left))
