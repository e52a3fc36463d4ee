"""AlexNet and the ResNets against their publisher: torchvision writes the weights and computes the features."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tdsp_vision.modeling.backbones import build_backbone
from tdsp_vision.modeling.networks import RESNETS

NAMES = ["alexnet", *RESNETS]


@pytest.fixture(scope="module")
def written(other_python, tmp_path_factory) -> Path:
    """A folder with pictures, and state dict and features of every network."""
    python = other_python("TORCH", "torch", "torchvision")
    folder = tmp_path_factory.mktemp("torch")
    np.save(folder / "pictures.npy", np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32))
    subprocess.run([python, str(Path(__file__).with_name("write_state_dicts.py")), str(folder), *NAMES], check=True)
    return folder


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_of_torchvision_gives_its_features(name, written):
    backbone = build_backbone(name, 224, weights=str(written / f"{name}.pth"))
    expected = np.load(written / f"{name}.npy")
    features = backbone.predict(np.load(written / "pictures.npy"), verbose=0)
    assert expected.std() > 0
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
