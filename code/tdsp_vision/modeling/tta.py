"""Look at a picture from several sides and take the mean: test-time flip averaging, as part of the network itself.

A lesion has no up and no left; a bee on a flower has an up, and still no left. What the network says of a mirrored
picture is another opinion on the same subject, and the mean of opinions is steadier than each (Krizhevsky et al. 2012,
section 4.1). It costs one pass for each view.
"""

import keras
from keras import ops

VIEWS = {"none": 1, "mirror": 2, "flips": 4, "flips_and_rotations": 8}


def flip_average(model: keras.Model, views: str = "flips") -> keras.Model:
    """A model whose output is the mean of `model`'s over several views of each image; it is saved and served like any.

    Args:
        model: from images [n, H, W, 3] to [n, d], a classifier or a featurizer.
        views: "none" returns the model itself; "mirror" averages the picture and its mirror image (left-right);
            "flips" the picture, mirrored left-right, up-down and both; "flips_and_rotations" these four and their
            transposed, which are all quarter turns and mirrors of a square.

    Returns:
        model with the same inputs and outputs [n, d], float32; the views of a batch pass through as one batch.

    Raises:
        ValueError: if `views` is unknown, or rotations are asked for and the images are not square.
    """
    if views not in VIEWS:
        raise ValueError(f"The views are {views!r}; allowed are {', '.join(map(repr, VIEWS))}.")
    if views == "none":
        return model
    _, height, width, _ = model.input_shape
    inputs = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name="image")
    upright = [inputs]
    if views == "flips_and_rotations":
        if height != width:
            raise ValueError(f"The views are {views!r}, and images are {height} x {width}; rotations need a square.")
        upright.append(ops.transpose(inputs, (0, 2, 1, 3)))
    mirrors = [None, (2,)] if views == "mirror" else [None, (2,), (1,), (1, 2)]
    seen = [ops.flip(view, axes) if axes else view for view in upright for axes in mirrors]
    # All in one batch, so that the network stands in the graph once.
    said = model(ops.concatenate(seen, axis=0))
    said = ops.reshape(ops.cast(said, "float32"), (len(seen), -1, model.output_shape[-1]))
    return keras.Model(inputs, ops.mean(said, axis=0), name=f"{model.name}_{views}")
