"""The UCI handwritten digits of scikit-learn (1,797 real 8x8 images, pixels 0..16), split once.

train: what the nets learn from and what the reference profile counts; calibration: activation ranges of
the int8 variants; held_out: what accuracy is measured on and what the demo feeds. No image is in two parts.
"""

import numpy as np
from sklearn.datasets import load_digits

SEED = 20260501
HELD_OUT = 500
CALIBRATION = 150


def split():
    """-> dict of part -> (images uint8 [n, 64], labels uint8 [n]); each class keeps its share in each part."""
    digits = load_digits()
    images, labels = digits.data.astype(np.uint8), digits.target.astype(np.uint8)
    order = _stratified_order(labels)
    parts = np.split(order, [HELD_OUT, HELD_OUT + CALIBRATION])
    return {name: (images[i], labels[i]) for name, i in zip(("held_out", "calibration", "train"), parts)}


def _stratified_order(labels):
    rng = np.random.default_rng(SEED)
    shuffled = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for digit in range(10):
        members = shuffled[labels[shuffled] == digit]
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")


def write_csv(path, images, labels):
    """One line per image: label, then 64 pixels row by row."""
    with open(path, "w", encoding="ascii", newline="\n") as out:
        out.write("label," + ",".join(f"p{i}" for i in range(64)) + "\n")
        for image, label in zip(images, labels):
            out.write(f"{label}," + ",".join(map(str, image)) + "\n")
