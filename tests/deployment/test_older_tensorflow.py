"""The exported model on the TensorFlow of the newest server image, in an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tdsp_vision.deployment.server import ServedVersion

OLDER = "2.20.*"


@pytest.mark.older_tensorflow
def test_scores_are_those_of_this_tensorflow(other_python, two_classes, every_format, photos, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    contents = [*every_format.values(), *photos, b"damaged"]
    for number, content in enumerate(contents):
        (images / f"{number:03}").write_bytes(content)
    command = [
        other_python("OLDER_TENSORFLOW", f"tensorflow=={OLDER}"),
        str(Path(__file__).with_name("score_by_session.py")),
    ]
    command += [str(two_classes.version_folder), str(images), str(tmp_path / "answer.json")]
    subprocess.run(command, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    answer = json.loads((tmp_path / "answer.json").read_text())
    served = ServedVersion(two_classes.version_folder)
    here = served.run("serving_default", {"image_bytes": np.array(contents, dtype=object)})
    assert answer["version"].startswith(OLDER.removesuffix("*"))
    assert answer["valid"] == here["valid"].tolist() == [True] * (len(contents) - 1) + [False]
    assert answer["label"] == [label.decode() for label in here["label"]]
    np.testing.assert_allclose(answer["scores"], here["scores"], atol=1e-6)
