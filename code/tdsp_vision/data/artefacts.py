"""What the camera adds to a drawn lesion: light, hair, ruler, gel bubbles, dark corners; never the class.

Every function takes a `numpy.random.Generator` and a picture, float32 [256, 256, 3], RGB, about 0 to 255, and
returns a new picture of the same kind. None of them knows which class is drawn: in many public collections
such marks differ between the classes, and a model learns the marks instead of the lesion.
"""

import cv2
import numpy as np

SIZE = 256  # side of a picture in pixels


def soft_step(values: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """0 far below zero, 1 far above, with a transition about `width` wide; same shape as `values`."""
    return 0.5 + 0.5 * np.tanh(values / width)


def expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light from one side, white balance and exposure, which evens out most of the mean brightness."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2)
    angle, slope, falloff = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.14), rng.uniform(0, 0.16)
    light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y) - falloff * (x**2 + y**2)
    image = image * light[..., None] * np.exp(rng.normal(0, [0.025, 0.025, 0.045]))
    image *= (rng.uniform(175, 225) / image.mean()) ** 0.9
    return (300 * (1 - np.exp(-image / 200)) ** 1.25).astype(np.float32)


def add_hair(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Thin curved hairs across the picture, each with its own darkness."""
    steps = np.linspace(0, 1, 24)[:, None]
    for _ in range(rng.integers(1, 8)):
        start, bend, end = rng.uniform(-40, SIZE + 40, (3, 2))
        bend = (start + end) / 2 + 0.35 * (bend - SIZE / 2)
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        mask = np.zeros((SIZE, SIZE), np.uint8)
        points = np.rint(curve * 16).astype(np.int32)[None]
        cv2.polylines(mask, points, False, 255, 1 + int(rng.random() < 0.35), cv2.LINE_AA, shift=4)
        image = _painted(image, mask, rng.uniform(0.4, 0.8), (58, 40, 34))
    return image


def add_ruler(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Tick marks along one edge, every fifth longer."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    spacing, edge = rng.uniform(7, 12), rng.uniform(10, 22)
    for tick in range(int(rng.uniform(90, 200) / spacing)):
        length = 10 if tick % 5 == 0 else 5
        at = 24 + tick * spacing
        ends = np.rint(np.array([[at, edge], [at + 0.4, edge + length]]) * 16).astype(np.int32)
        cv2.line(mask, ends[0], ends[1], 255, 1, cv2.LINE_AA, shift=4)
    return _painted(image, np.rot90(mask, rng.integers(4)), rng.uniform(0.5, 0.8), (40, 40, 48))


def add_bubbles(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Gel bubbles: a faint bright ring with a highlight."""
    for _ in range(rng.integers(1, 9)):
        centre, radius = rng.integers(8, SIZE - 8, 2), int(rng.integers(2, 8))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        cv2.circle(mask, centre, radius, 150, 1, cv2.LINE_AA)
        cv2.circle(mask, centre - radius // 2, max(radius // 4, 1), 255, -1, cv2.LINE_AA)
        image = _painted(image, mask, rng.uniform(0.4, 0.8), (250, 246, 244))
    return image


def add_dark_corners(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The round rim of the dermatoscope's lens."""
    x, y = np.meshgrid(*[np.arange(SIZE, dtype=np.float32)] * 2)
    centre = SIZE / 2 + rng.normal(0, 4, 2)
    outside = np.hypot(x - centre[0], y - centre[1]) - rng.uniform(122, 165)
    return image * (1 - 0.95 * soft_step(outside, rng.uniform(2, 9)))[..., None]


def _painted(image: np.ndarray, mask: np.ndarray, opacity: float, colour: tuple) -> np.ndarray:
    return image + opacity * (mask[..., None] / np.float32(255)) * (np.float32(colour) - image)


PROBABILITIES = {add_hair: 0.35, add_ruler: 0.25, add_bubbles: 0.3, add_dark_corners: 0.25}
