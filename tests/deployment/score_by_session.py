"""Run by another TensorFlow, without this project: score images with a SavedModel through the v1 loader.

python score_by_session.py VERSION_FOLDER IMAGE_FOLDER ANSWER.json
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

version, images, answer = map(Path, sys.argv[1:])
contents = [file.read_bytes() for file in sorted(images.iterdir())]
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    with session.graph.as_default():
        definitions = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version)).signature_def
    definition = definitions["serving_default"]
    outputs = {name: info.name for name, info in definition.outputs.items()}
    feed = {definition.inputs["image_bytes"].name: np.array(contents, dtype=object)}
    scored = session.run(outputs, feed)
result = {"version": tf.__version__, "scores": scored["scores"].tolist(), "valid": scored["valid"].tolist()}
answer.write_text(json.dumps(result | {"label": [label.decode() for label in scored["label"]]}))
