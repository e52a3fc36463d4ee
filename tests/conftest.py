"""What several tests share: the real photos, where there are some."""

import os
from pathlib import Path

import pytest

from tdsp_vision.paths import ROOT

PHOTOS = Path(os.environ.get("TDSP_REAL_PHOTOS") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder with the real photos (`isic2019_256`, `ants_bees`); REQUIRE_REAL_PHOTOS makes their absence an error."""
    if (PHOTOS / "isic2019_256").is_dir() and (PHOTOS / "ants_bees").is_dir():
        return PHOTOS
    message = f"no real photos in {PHOTOS}; the environment variable TDSP_REAL_PHOTOS names their folder"
    if os.environ.get("REQUIRE_REAL_PHOTOS"):
        pytest.fail(message)
    pytest.skip(message)
