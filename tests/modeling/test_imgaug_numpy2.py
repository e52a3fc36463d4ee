"""imgaug 0.4.0 on NumPy 2: it imports, leaves NumPy alone, and its augmenters run and compute what they should."""

import inspect
import subprocess
import sys
import warnings

import numpy as np
import pytest

from tdsp_vision.modeling.augment import augment_batch
from tdsp_vision.modeling.imgaug_numpy2 import iaa

pytestmark = pytest.mark.filterwarnings("ignore")  # of outdated names that imgaug uses; nobody develops it any more
REFUSED = {"ChangeColorTemperature"}  # mixes up images and channels, with any NumPy


def _without_arguments() -> dict[str, iaa.Augmenter]:
    """Every augmenter that can be made without arguments, by name."""
    found = {}
    for name, kind in vars(iaa).items():
        if inspect.isclass(kind) and issubclass(kind, iaa.Augmenter) and not inspect.isabstract(kind):
            try:
                with warnings.catch_warnings(action="ignore"):
                    found[name] = kind()
            except (TypeError, AssertionError):  # it needs arguments, and says so in one of these two ways
                continue
    return found


AUGMENTERS = _without_arguments()
IMAGES = np.random.default_rng(0).integers(0, 256, [4, 32, 32, 3], np.uint8)


def test_there_are_many():
    assert len(AUGMENTERS) > 100
    assert AUGMENTERS.keys() >= {"Affine", "Fliplr", "Rot90", "Cutout", "SomeOf", "Rain", "RandAugment", *REFUSED}


@pytest.mark.parametrize("name", sorted(AUGMENTERS.keys() - REFUSED - {"Jigsaw"}))
def test_runs_and_repeats_itself_in_batches(name):
    got = augment_batch(AUGMENTERS[name], IMAGES, 7)
    assert got.dtype == np.uint8 and got.shape == IMAGES.shape
    again = augment_batch(type(AUGMENTERS[name])(), IMAGES, 7)  # made later: imgaug's global random numbers moved on
    np.testing.assert_array_equal(got, again)


def test_a_jigsaw_runs_and_pads():
    got = AUGMENTERS["Jigsaw"](images=list(IMAGES))
    assert all(image.dtype == np.uint8 and 32 <= len(image) <= 40 for image in got)


def test_change_color_temperature_is_still_broken():
    with pytest.raises(ValueError, match="broadcast"):
        AUGMENTERS["ChangeColorTemperature"](images=IMAGES)


def test_the_simple_ones_compute_what_their_names_say():
    wide = IMAGES.astype(float)
    np.testing.assert_array_equal(iaa.Add(40)(images=IMAGES), np.clip(wide + 40, 0, 255))
    assert np.abs(iaa.Multiply(1.5)(images=IMAGES) - np.clip(wide * 1.5, 0, 255)).max() <= 1
    assert np.abs(iaa.LinearContrast(2.0)(images=IMAGES) - np.clip(128 + 2 * (wide - 128), 0, 255)).max() <= 1
    np.testing.assert_array_equal(iaa.Fliplr(1.0)(images=IMAGES), IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(iaa.Rot90(1)(images=IMAGES), np.rot90(IMAGES, -1, (1, 2)))


def test_noise_that_needs_complex_numbers():
    noise = iaa.BlendAlphaFrequencyNoise(foreground=iaa.Add(50))
    assert augment_batch(noise, IMAGES, 0).shape == IMAGES.shape


def test_numpy_stays_as_it_was_and_tensorflow_is_not_needed():
    code = (
        "import sys, numpy as np; from tdsp_vision.modeling.imgaug_numpy2 import iaa; "
        "lent = [name for name in ('sctypes', 'complex') if hasattr(np, name)]; "
        "print(lent, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] False"
