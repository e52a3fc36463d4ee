"""Which versions of a served model lie in its folder: sub-folders named by a whole number."""

from pathlib import Path


def versions_in(serving_folder: Path) -> list[int]:
    """Version numbers in ascending order; an empty list where the folder is missing or holds none.

    TensorFlow Serving takes every sub-folder with a number for a name; drafts start with a dot.
    """
    if not serving_folder.is_dir():
        return []
    names = [entry.name for entry in serving_folder.iterdir() if entry.is_dir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())
