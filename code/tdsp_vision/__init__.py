"""Image classification in three notebooks: what they call, by stage, and what runs them.

Keras reads settings of its user when it is imported; a backend or float type chosen for another program would change
scores or crash. So its backend is named here, and its settings file is one of this project's own.
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = str(Path.home() / ".cache" / "tdsp-vision" / "keras")
# TensorFlow's libraries write past every setting of the log while they load. In a notebook ipykernel would catch that
# and show it in red; so what is no Python goes where the kernel's own words go. Python's warnings are still shown.
if hasattr(sys.stderr, "_original_stdstream_copy"):
    os.dup2(sys.stderr._original_stdstream_copy, 2)
