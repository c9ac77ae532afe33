"""How small any delta could be that looks at one number at a time: FOLDER/<pair>/{old,new}.onnx, JSON on stdout.

For numbers of 2 or 4 bytes: the entropy of the difference's length in bits, given the old number's sign and exponent
(which the reader knows), plus the bits below its first one, which nothing foretells. For single bytes: the entropy
of the difference. Headers, tables and everything else of the file are not counted, so no real delta gets there.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper

EXPONENT_SHIFT = {2: 10, 4: 23}


def entropy(values):
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def bits(old, new):
    """Bits that the tensor's differences take at least."""
    width = old.dtype.itemsize
    if width not in EXPONENT_SHIFT:
        return entropy(new.view(np.uint8) - old.view(np.uint8)) * old.size
    words = {2: np.uint16, 4: np.uint32}[width]
    old, new = (array.ravel().view(words).astype(np.int64) for array in (old, new))
    full = 1 << (8 * width)
    moved = (new - old) % full
    folded = np.where(moved >= full // 2, 2 * (full - moved) - 1, 2 * moved)
    lengths = np.ceil(np.log2(folded + 1)).astype(int)
    exponents = old >> EXPONENT_SHIFT[width]
    known = sum(entropy(lengths[exponents == e]) * (exponents == e).sum() for e in np.unique(exponents))
    return known + np.maximum(lengths - 1, 0).sum()


def tensors(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def main():
    floors = {}
    for old_file in sorted(pathlib.Path(sys.argv[1]).glob("*/old.onnx")):
        pair = old_file.parent
        old, new = tensors(old_file), tensors(pair / "new.onnx")
        same = [name for name in new if name in old and old[name].shape == new[name].shape]
        floors[pair.name] = round(sum(bits(old[name], new[name]) for name in same) / 8)
    print(json.dumps(floors))


main()
