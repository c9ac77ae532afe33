"""Makes vectors.json: inputs, the release's steps, and what the libraries that models are trained with make of them.

`python3 -m venv v && v/bin/pip install -r requirements.txt && v/bin/python make.py`. The test in
`crates/inference/src/parity.rs` runs the same steps on the device's code and compares.
"""

import json
import pathlib

import cv2
import numpy as np
from PIL import Image
from scipy.special import expit, softmax
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

RANDOM = np.random.default_rng(7)
CASES = []


def tensor(array):
    names = {
        "float32": "FP32", "float64": "FP64", "uint8": "UINT8", "int32": "INT32", "int64": "INT64",
        "bool": "BOOL", "object": "BYTES",
    }
    array = np.asarray(array)
    if array.dtype.kind == "U":
        array = array.astype(object)
    data = [exact(value) if array.dtype == np.float32 else value for value in array.ravel().tolist()]
    return {"name": "x", "datatype": names[str(array.dtype)], "shape": list(array.shape), "data": data}


def exact(value):
    """As few digits as name this float32 and no other."""
    return None if value != value else float(f"{value:.9g}")


def case(name, kind, steps, array, outputs, labels=()):
    outputs = [tensor(output) for output in outputs]
    CASES.append({"name": name, kind: steps, "labels": list(labels), "input": tensor(array), "outputs": outputs})


def floats(array):
    return np.asarray(array, dtype=np.float32)


def pillow(image, height, width, method):
    """One channel at a time, because only single channels may be float."""
    planes = [Image.fromarray(image[:, :, c], mode="F") for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize((width, height), method)) for plane in planes], axis=2)


def images():
    image = floats(RANDOM.uniform(0, 255, (9, 13, 3)))
    for height, width in [(4, 5), (20, 31), (9, 6)]:
        made = {
            "bilinear": cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR),
            "nearest": pillow(image, height, width, Image.Resampling.NEAREST),
            "bilinear_antialias": pillow(image, height, width, Image.Resampling.BILINEAR),
        }
        for method, out in made.items():
            step = {"kind": "resize", "height": height, "width": width, "layout": "nhwc", "method": method}
            case(f"resize {method} to {height}x{width}", "pre", [step], image[None], [floats(out)[None]])
    bytes_exactly()
    photo = RANDOM.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    whole = cv2.resize(photo[:, :, ::-1], (8, 6), interpolation=cv2.INTER_LINEAR)
    whole = (whole[1:5, 2:6] / 255 - mean) / std
    steps = [
        {"kind": "channels", "order": [2, 1, 0], "layout": "nhwc"},
        {"kind": "resize", "height": 6, "width": 8, "layout": "nhwc"},
        {"kind": "crop", "top": 1, "left": 2, "height": 4, "width": 4, "layout": "nhwc"},
        {"kind": "layout", "from": "nhwc", "to": "nchw"},
        {"kind": "scale", "factor": 1 / 255},
        {"kind": "standardise", "mean": mean, "std": std},
    ]
    case("a photo in BGR for an ImageNet model", "pre", steps, photo[None], [floats(whole.transpose(2, 0, 1))[None]])


def bytes_exactly():
    """8-bit images: whole values, to the last bit. Other generator, so that the other cases stay what they are."""
    random = np.random.default_rng(8)
    sizes = [((9, 13), (4, 5)), ((9, 13), (20, 31)), ((16, 16), (8, 8)), ((12, 40), (17, 7)), ((1, 5), (3, 9)), ((31, 17), (9, 6))]
    for (h, w), (height, width) in sizes:
        image = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
        rgb = Image.fromarray(image, mode="RGB")
        across = rgb.resize((width, h), Image.Resampling.BILINEAR)
        made = {
            "bilinear": cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR),
            "nearest": np.asarray(rgb.resize((width, height), Image.Resampling.NEAREST)),
            # Columns first, as all of Pillow before 13 do it; 13 begins with the rows where it finds that faster.
            "bilinear_antialias": np.asarray(across.resize((width, height), Image.Resampling.BILINEAR)),
        }
        for method, out in made.items():
            step = {"kind": "resize", "height": height, "width": width, "layout": "nhwc", "method": method}
            cast = {"kind": "cast", "datatype": "UINT8"}
            name = f"8-bit {h}x{w} resize {method} to {height}x{width}"
            case(name, "pre", [step, cast], image[None], [out[None]])
    image = random.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    out = cv2.resize(image.astype(np.float32), (5, 4), interpolation=cv2.INTER_LINEAR)
    step = {"kind": "resize", "height": 4, "width": 5, "layout": "nhwc", "method": "bilinear"}
    cast = {"kind": "cast", "datatype": "FP32"}
    case("8-bit, cast to floats before it is resized", "pre", [cast, step], image[None], [out[None]])
    out = cv2.resize(image, (5, 4), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    case("8-bit, resized for a model of floats", "pre", [step], image[None], [out[None]])


def rows():
    numbers = floats(RANDOM.normal(50, 20, (40, 2)))
    numbers[RANDOM.uniform(size=numbers.shape) < 0.2] = np.nan
    imputer = SimpleImputer(strategy="median").fit(numbers)
    filled = imputer.transform(numbers)
    scaler = StandardScaler().fit(filled)
    impute = {"kind": "impute", "values": imputer.statistics_.tolist()}
    scale = {"kind": "standardise", "mean": scaler.mean_.tolist(), "std": scaler.scale_.tolist()}
    case("numbers, imputed and standardised", "pre", [impute, scale], numbers, [floats(scaler.transform(filled))])
    colours = RANDOM.choice(["red", "green", "blue"], (40, 1))
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan).fit(colours)
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(colours)
    asked = np.array([["blue"], ["red"], ["violet"], ["green"], [""]])
    texts = [["" if np.isnan(a) else repr(float(a)), c[0], repr(float(b))] for (a, b), c in zip(filled[:5], asked)]
    vocabulary = {"kind": "vocabulary", "columns": [{"column": 1, "words": ordinal.categories_[0].tolist()}]}
    one_hot = {"kind": "one_hot", "column": 1, "size": 3}
    values = floats(np.hstack([filled[:5, :1], ordinal.transform(asked), filled[:5, 1:]]))
    case("texts by a vocabulary", "pre", [vocabulary], np.array(texts), [values])
    values = floats(np.hstack([filled[:5, :1], hot.transform(asked), filled[:5, 1:]]))
    case("texts by a vocabulary, one column per class", "pre", [vocabulary, one_hot], np.array(texts), [values])


def wide():
    """Numbers that float32 doesn't hold: seconds of a year, places on Earth in 1e-7 degrees, ids."""
    numbers = np.stack([
        1732275000 + RANDOM.integers(0, 3600, 30).astype(np.float64),
        20000000 + RANDOM.integers(0, 9, 30).astype(np.float64),
        473769000 + RANDOM.integers(0, 999, 30).astype(np.float64),
    ], axis=1)
    scaler = StandardScaler().fit(numbers)
    scale = {"kind": "standardise", "mean": scaler.mean_.tolist(), "std": scaler.scale_.tolist()}
    expected = [floats(scaler.transform(numbers))]
    texts = np.array([[str(int(value)) for value in row] for row in numbers])
    vocabulary = {"kind": "vocabulary", "columns": []}
    case("timestamps and places in float64, standardised", "pre", [scale], numbers, expected)
    case("the same in int64", "pre", [scale], numbers.astype(np.int64), expected)
    case("the same in int32", "pre", [scale], numbers.astype(np.int32), expected)
    case("the same as texts", "pre", [vocabulary, scale], texts, expected)
    gaps = numbers.copy()
    gaps[RANDOM.uniform(size=gaps.shape) < 0.2] = np.nan
    imputer = SimpleImputer(strategy="median").fit(gaps)
    impute = {"kind": "impute", "values": imputer.statistics_.tolist()}
    texts = np.array([["" if np.isnan(value) else str(int(value)) for value in row] for row in gaps])
    expected = [floats(scaler.transform(imputer.transform(gaps)))]
    case("texts with gaps, imputed and standardised", "pre", [vocabulary, impute, scale], texts, expected)
    lowest, span = numbers.min(axis=0)[0], 3600.0
    steps = [
        {"kind": "clip", "min": lowest + 10, "max": lowest + 3000},
        {"kind": "standardise", "mean": [lowest], "std": [span]},
        {"kind": "scale", "factor": 2.0},
    ]
    column = numbers[:, :1]
    out = (np.clip(column, lowest + 10, lowest + 3000) - lowest) / span * 2
    case("timestamps clipped, moved and scaled", "pre", steps, column, [floats(out)])


def scores():
    raw = floats(RANDOM.normal(0, 4, (6, 5)))
    labels = ["ant", "bee", "cat", "dog", "eel"]
    soft = floats(softmax(raw.astype(np.float64), axis=1))
    order = np.argsort(-soft, axis=1, kind="stable")
    best = [np.take_along_axis(soft, order[:, :3], axis=1), order[:, :3].astype(np.int64)]
    steps = [{"kind": "softmax"}, {"kind": "argmax"}, {"kind": "labels"}, {"kind": "top_k", "k": 3}]
    names = np.array([labels[row[0]] for row in order])
    case("softmax, best class, label and top 3", "post", steps, raw, [soft, order[:, 0], names, *best], labels)
    each = floats(expit(raw.astype(np.float64)))
    case("sigmoid and threshold", "post", [{"kind": "sigmoid"}, {"kind": "threshold", "min": 0.6}], raw, [each, each >= 0.6])
    bound = floats([[0.9, 0.1], [np.nextafter(np.float32(0.9), np.float32(0)), 0.95]])
    case("scores on the threshold", "post", [{"kind": "threshold", "min": 0.9}], bound, [bound, bound >= 0.9])


images()
rows()
scores()
wide()
out = pathlib.Path(__file__).with_name("vectors.json")
out.write_text("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in CASES) + "\n]\n")
print(f"{len(CASES)} cases, {out.stat().st_size} bytes")
