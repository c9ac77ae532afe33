"""Seeded inputs that resemble what sensors give: images and signals with a 1/f spectrum, edges and flat parts."""

import numpy as np


def _pink(rng, shape):
    """Noise whose amplitude falls with frequency, as in natural images and signals; mean 0, deviation 1."""
    grids = np.meshgrid(*[np.fft.fftfreq(n) * n for n in shape], indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grids))
    radius[radius == 0] = 1
    spectrum = np.fft.fftn(rng.standard_normal(shape)) / radius
    noise = np.real(np.fft.ifftn(spectrum))
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def image(rng, size=224):
    """[3, size, size] f32, about -2..2 as images are after the usual normalisation."""
    luma = _pink(rng, (size, size))
    ys, xs = np.mgrid[0:size, 0:size]
    for _ in range(6):  # objects: discs and half planes with sharp edges
        cy, cx, r = rng.integers(0, size, 3)
        inside = (ys - cy) ** 2 + (xs - cx) ** 2 < (r // 3 + 8) ** 2
        luma = np.where(inside, luma * 0.3 + rng.uniform(-2, 2), luma)
    channels = [luma * rng.uniform(0.7, 1.1) + 0.3 * _pink(rng, (size, size)) for _ in range(3)]
    return np.clip(np.stack(channels), -2.2, 2.6).astype(np.float32)


def signal(rng, channels=6, length=1024):
    """[channels, length] f32: drift, a few tones and a transient, as an accelerometer gives."""
    t = np.arange(length)
    rows = []
    for _ in range(channels):
        tones = sum(rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(0.002, 0.2) * t + rng.uniform(0, 6)) for _ in range(3))
        start = rng.integers(0, length)
        bump = np.exp(-np.abs(t - start) / 20.0) * rng.uniform(-3, 3)
        rows.append(0.5 * _pink(rng, (length,)) + tones + bump)
    return np.clip(np.stack(rows), -6, 6).astype(np.float32)


def features(rng, count=784):
    """[count] f32 in 0..1, many of them zero, as a flattened small grey image."""
    side = int(count**0.5)
    values = np.clip(_pink(rng, (side, side)) * 0.6, 0, 1).reshape(-1)
    return values.astype(np.float32)


MAKERS = {"image": image, "signal": signal, "features": features}


def batch(kind, seed, count):
    """[count, ...] of one kind; the same seed gives the same numbers."""
    rng = np.random.default_rng(seed)
    return np.stack([MAKERS[kind](rng) for _ in range(count)])
