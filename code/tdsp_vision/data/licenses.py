"""Licences under which pictures come, what each asks for, and the file that says whom to name.

Names are those of the ISIC Archive (CC-0, CC-BY, …); versions stand in a column of their own where a source has them.
"""

from pathlib import Path

import pandas as pd

from tdsp_vision.files import write_text

NAMING = "Name the creator, link to the licence, and say whether you changed the picture"
TERMS = {
    "CC-0": "Nothing. The creators gave up their rights; naming them is good practice.",
    "PDM": "Nothing. The picture is marked as free of known copyright.",
    "CC-BY": f"{NAMING}.",
    "CC-BY-SA": f"{NAMING}; share adaptations under the same licence.",
    "CC-BY-ND": f"{NAMING}; do not share adaptations.",
    "CC-BY-NC": f"{NAMING}; no commercial use.",
    "CC-BY-NC-SA": f"{NAMING}; no commercial use; share adaptations under the same licence.",
    "CC-BY-NC-ND": f"{NAMING}; no commercial use; do not share adaptations.",
}
UNKNOWN = "not known; ask whoever published the picture before you share it"


def write_attribution(path: Path, images: pd.DataFrame) -> None:
    """Write `ATTRIBUTION.md`: for each licence its number of images, what it asks for, and whom to name.

    Args:
        path: file to write.
        images: a manifest, or another table with the columns license and attribution; a missing value is "".
    """
    table = images[["license", "attribution"]].fillna("").astype(str)
    lines = ["# Attribution", "", f"{len(table):,} images. What their licences ask for, and whom to name:", ""]
    for name, group in table.groupby("license"):
        lines += [f"## {name or 'No licence given'}: {len(group):,} images", "", f"{TERMS.get(name, UNKNOWN)}", ""]
        for text, count in group.attribution.value_counts().sort_index().items():
            lines.append(f"- {' '.join(text.split()) or 'no attribution given'} ({count:,})")
        lines.append("")
    write_text(path, "\n".join(lines))
