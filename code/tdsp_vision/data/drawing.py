"""Draw pictures that look like dermoscopy of skin lesions, for the sample data; nothing medical is in them.

In: four signs in 0..1 (asymmetry, border, colours, diameter: the ABCD rule of dermatoscopy, Nachbar et al.
1994, doi 10.1016/S0190-9622(94)70061-3), a skin tone in 0..1, two seeds. Out: uint8 [256, 256, 3], RGB.
The lesion seed fixes the lesion itself, the view seed everything that changes from one photo to the next:
rotation, position, zoom, lighting, white balance, hair, ruler, gel bubbles, dark corners, blur. Only the four
signs may depend on the class; all else is drawn without knowing it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from tdsp_vision.data import artefacts

SIZE = artefacts.SIZE
CANVAS = 352  # side of the lesion's own frame: leaves room to turn and shift the largest lesion
SKIN_TONES = np.float32([[240, 208, 200], [233, 186, 166], [214, 162, 130], [176, 124, 92], [136, 92, 66]])
LESION_COLOURS = {
    "light brown": (142, 90, 62),
    "dark brown": (76, 43, 32),
    "black": (30, 22, 24),
    "red": (160, 70, 68),
    "blue-grey": (92, 94, 110),
    "white": (214, 182, 172),
}
EXTRA_COLOURS = {"dark brown": 0.33, "black": 0.26, "red": 0.2, "blue-grey": 0.11, "white": 0.1}  # how often
PATTERNS = ("network", "globules", "homogeneous")


@dataclass(frozen=True)
class Signs:
    """How strongly a lesion shows each sign of the ABCD rule, 0 (not at all) to 1 (extremely)."""

    asymmetry: float
    border: float
    colours: float
    diameter: float

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"the sign {name} is {value!r}; it must lie between 0 and 1.")


def draw_lesion(signs: Signs, skin_tone: float, lesion_seed: list[int], view_seed: list[int]) -> np.ndarray:
    """One picture of one lesion.

    Args:
        signs: what distinguishes the classes, see `Signs`.
        skin_tone: 0 (lightest) to 1 (darkest).
        lesion_seed, view_seed: non-negative integers for `numpy.random.default_rng`; the same lesion seed
            with another view seed gives another photo of the same lesion.

    Returns:
        uint8 [256, 256, 3], RGB.

    Raises:
        ValueError: if `skin_tone` lies outside 0..1.
    """
    if not 0 <= skin_tone <= 1:
        raise ValueError(f"skin_tone is {skin_tone!r}; it must lie between 0 (lightest) and 1 (darkest).")
    lesion_rng, rng = np.random.default_rng(lesion_seed), np.random.default_rng(view_seed)
    skin = _skin(rng, skin_tone)
    colour, opacity = _placed(rng, *_lesion(lesion_rng, signs, skin_tone))
    image = skin + opacity[..., None] * (colour - skin)
    image = artefacts.expose(rng, image)
    for add, probability in artefacts.PROBABILITIES.items():
        if rng.random() < probability:
            image = add(rng, image)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.9))
    image += rng.normal(0, rng.uniform(0.5, 4), (SIZE, SIZE, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _noise(rng, size: int, cells: float) -> np.ndarray:
    """Smooth random field [size, size], mean 0 and variance 1, with about `cells` bumps along a side."""
    grid = rng.normal(size=(round(2 * cells) + 5,) * 2).astype(np.float32)
    grid = cv2.GaussianBlur(grid, (0, 0), 0.9)  # a bare grid would show its rows and columns
    field = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def _skin(rng, tone: float) -> np.ndarray:
    """Bare skin, float32 [256, 256, 3]: uneven colour, fine relief, a few faint vessels."""
    position = tone * (len(SKIN_TONES) - 1)
    base = [np.interp(position, range(len(SKIN_TONES)), SKIN_TONES[:, channel]) for channel in range(3)]
    relief = 2.5 * _noise(rng, SIZE, 5) + 2.5 * _noise(rng, SIZE, 28) + 2.5 * _noise(rng, SIZE, 80)
    vessels = np.exp(-((_noise(rng, SIZE, 11) / 0.13) ** 2)) * np.clip(_noise(rng, SIZE, 4), 0, 1)
    freckles = artefacts.soft_step(_noise(rng, SIZE, 22) - 2.2, 0.25) * rng.uniform(0, 0.22)
    skin = np.float32(base) + relief[..., None] * np.float32([1, 1.1, 1.1])
    skin -= (rng.uniform(0, 14) * vessels)[..., None] * np.float32([0.3, 1, 0.8])
    return skin * (1 - freckles[..., None] * np.float32([0.6, 0.9, 1.1]))


def _lesion(rng, signs: Signs, skin_tone: float) -> tuple[np.ndarray, np.ndarray]:
    """The lesion in its own frame of CANVAS x CANVAS: colour (0 to 255, 3 channels) and opacity (0 to 1)."""
    radius = 31 + 44 * signs.diameter + rng.normal(0, 2)
    x, y = np.meshgrid(*[np.arange(CANVAS, dtype=np.float32) - CANVAS / 2] * 2)
    inside = _outline(rng, signs, radius, x, y)  # pixels to the border, positive inside
    softness = (10 - 7.5 * signs.border) * (1 + 0.3 * _noise(rng, CANVAS, 3) * signs.border)
    shape = artefacts.soft_step(inside, np.maximum(softness, 1.5))
    depth = np.clip(inside / radius, 0, 1)
    direction = rng.uniform(0, 2 * np.pi)
    lopsided = (x * np.cos(direction) + y * np.sin(direction)) / radius * 1.2 * signs.asymmetry
    colour = _pigment(rng, signs, depth, lopsided)
    texture = _texture(rng, 1 + 0.9 * lopsided)
    colour = colour * (1 + texture[..., None] * np.float32([0.8, 1, 1])) * (1 - 0.12 * skin_tone)
    density = rng.uniform(0.78, 0.95) + 0.07 * _noise(rng, CANVAS, 9) + 0.12 * depth - 0.12 * texture
    return colour, shape * np.clip(density, 0.35, 1)


def _outline(rng, signs: Signs, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (approximate, pixels) to a noisy outline r(theta) = radius * (1 + harmonics)."""
    theta, distance = np.arctan2(y, x), np.hypot(x, y)
    border = np.ones_like(theta)
    for order in range(1, 15):
        if order == 2:  # an ellipse is symmetric: any lesion may be one
            amplitude = rng.uniform(0.02, 0.14)
        elif order <= 4:
            amplitude = (0.02 + 0.22 * signs.asymmetry) / order**0.7 * rng.uniform(0.6, 1.3)
        else:
            amplitude = (0.03 + 0.26 * signs.border) / order * rng.uniform(0.3, 1.5)
        border += amplitude * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    ragged = (1 + 3.6 * signs.border) * (_noise(rng, CANVAS, 24) + 0.6 * _noise(rng, CANVAS, 60))
    return radius * np.clip(border, 0.4, 1.6) - distance + ragged


def _pigment(rng, signs: Signs, depth: np.ndarray, lopsided: np.ndarray) -> np.ndarray:
    """Colour of the lesion without texture: a brown ground and one patch for each further colour."""
    ground = np.float32(LESION_COLOURS["light brown"])
    core = np.float32(LESION_COLOURS["dark brown"])
    ground, core = (shade * np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.03, 3)) for shade in (ground, core))
    centre = rng.uniform(0.1, 0.9) * artefacts.soft_step(depth - rng.uniform(0.15, 0.6) + 0.5 * lopsided, 0.25)
    mix = np.clip(centre + 0.13 * _noise(rng, CANVAS, 12), 0, 1)
    colour = ground + mix[..., None] * (core - ground)
    extra = int(np.floor(4.2 * signs.colours + rng.uniform(0, 0.8)))
    names = rng.choice(list(EXTRA_COLOURS), len(EXTRA_COLOURS), replace=False, p=list(EXTRA_COLOURS.values()))
    for name in names[:extra]:
        field = _noise(rng, CANVAS, rng.uniform(7, 14)) + 0.35 * _noise(rng, CANVAS, 40) + 2 * lopsided
        patch = artefacts.soft_step(field + 0.8 * depth - rng.uniform(0.9, 1.4), 0.6) * rng.uniform(0.6, 0.9)
        colour += patch[..., None] * (np.float32(LESION_COLOURS[name]) + rng.normal(0, 4, 3) - colour)
    return colour


def _texture(rng, strength: np.ndarray) -> np.ndarray:
    """Relative brightness changes of the lesion's pattern, about -0.4 to 0.2; darker is negative."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    contrast = rng.uniform(0.15, 0.38) * np.clip(strength, 0.1, 2)
    grain = 0.05 * _noise(rng, CANVAS, 90)
    field = _noise(rng, CANVAS, rng.uniform(34, 50))
    if pattern == "network":  # dark lines where the field crosses zero enclose lighter holes
        return contrast * (0.4 - np.exp(-((field / 0.45) ** 2))) + grain
    if pattern == "globules":
        return -contrast * artefacts.soft_step(field - 1.1, 0.3) + grain
    return 0.06 * _noise(rng, CANVAS, 14) + grain


def _placed(rng, colour: np.ndarray, opacity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lesion turned, zoomed and shifted into the picture's frame of 256 x 256."""
    zoom, angle, mirror = rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    turn = np.array([[cos * mirror, -sin * mirror], [sin, cos]])
    target = SIZE / 2 + np.clip(rng.normal(0, 11, 2), -26, 26)
    matrix = np.hstack([turn, (CANVAS / 2 - turn @ target)[:, None]])
    layers = np.dstack([colour, opacity]).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    layers = cv2.warpAffine(layers, matrix, (SIZE, SIZE), flags=flags)
    return layers[..., :3], layers[..., 3]
