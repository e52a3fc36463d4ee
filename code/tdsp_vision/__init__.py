"""Image classification in three notebooks: what they call, by stage, and what runs them.

Keras reads settings of its user when it is imported; a backend or float type chosen for another program would change
scores or crash. So its backend is named here, and its settings file is one of this project's own.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = str(Path.home() / ".cache" / "tdsp-vision" / "keras")
