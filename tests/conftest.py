"""What several tests share: the real photos, where there are some."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tdsp_vision.paths import ROOT

# The same examples in every run: a failure is then the change's, not the day's.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

PHOTOS = Path(os.environ.get("TDSP_REAL_PHOTOS") or ROOT.parent / "shared" / "data")


# Files that take minutes go first: started last, one of them would keep one core busy and the others idle.
LONGEST = ["test_walkthrough.py", "test_exercises.py", "test_sweeps.py", "test_untouched_test_side.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files to the front; the order within a file stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder with the real photos (`isic2019_256`, `ants_bees`); REQUIRE_REAL_PHOTOS makes their absence an error."""
    if (PHOTOS / "isic2019_256").is_dir() and (PHOTOS / "ants_bees").is_dir():
        return PHOTOS
    message = f"no real photos in {PHOTOS}; the environment variable TDSP_REAL_PHOTOS names their folder"
    if os.environ.get("REQUIRE_REAL_PHOTOS"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def other_python(tmp_path_factory):
    """A function that gives a Python with other packages: the one that TDSP_<name> names, or a new one, several
    hundred MB to fetch, where REQUIRE_<name>=1; else the test is left out."""

    def prepared(name: str, *packages: str) -> str:
        if named := os.environ.get(f"TDSP_{name}"):
            return named
        if not os.environ.get(f"REQUIRE_{name}"):
            pytest.skip(f"REQUIRE_{name}=1 fetches {', '.join(packages)}; TDSP_{name} names a Python that has it")
        folder = tmp_path_factory.mktemp(name) / "environment"
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        python = str(folder / "bin/python")
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
        return python

    return prepared
