"""What licences ask for, written beside the images."""

import pandas as pd

from tdsp_vision.data.licenses import write_attribution


def test_attribution_names_licences_their_terms_and_whom_to_name(tmp_path):
    table = pd.DataFrame(
        {"license": ["CC-BY", "CC-0", "CC-BY", None, "HOME"], "attribution": ["B", "A\nC", "B", None, "D"]}
    )
    write_attribution(tmp_path / "ATTRIBUTION.md", table)
    text = (tmp_path / "ATTRIBUTION.md").read_text()
    assert "## CC-BY: 2 images\n\nName the creator, link to the licence" in text and "- B (2)\n" in text
    assert "## CC-0: 1 images\n\nNothing." in text and "- A C (1)\n" in text
    assert "## No licence given: 1 images\n\nnot known" in text and "- no attribution given (1)" in text
    assert "## HOME: 1 images\n\nnot known" in text
