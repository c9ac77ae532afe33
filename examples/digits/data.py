"""The UCI handwritten digits of scikit-learn (1,797 real 8x8 images, pixels 0..16), split once.

train: what the nets learn from; reference: what the reference profile counts, and activation ranges of the int8
variants; held_out: what accuracy is measured on and what the demo feeds. No image is in two parts. The reference
holds no training images, because a net is surer of what it learnt from than of anything that it will ever see.
"""

import numpy as np
from sklearn.datasets import load_digits

SEED = 20260501
HELD_OUT = 500
REFERENCE = 400


def split():
    """-> dict of part -> (images uint8 [n, 64], labels uint8 [n]); each class keeps its share in each part."""
    digits = load_digits()
    images, labels = digits.data.astype(np.uint8), digits.target.astype(np.uint8)
    order = _stratified_order(labels)
    parts = np.split(order, [HELD_OUT, HELD_OUT + REFERENCE])
    return {name: (images[i], labels[i]) for name, i in zip(("held_out", "reference", "train"), parts)}


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
