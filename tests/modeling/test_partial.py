"""Training the last stages from cached activations is training the whole network with its first stages frozen."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tdsp_vision.modeling import partial as module
from tdsp_vision.modeling.alexnet import build_alexnet
from tdsp_vision.modeling.backbones import build_backbone, stage_ends
from tdsp_vision.modeling.batches import preprocess, training_batches
from tdsp_vision.modeling.partial import (
    activation_batches,
    activations_in_order,
    cached_activations,
    split_backbone,
)
from tdsp_vision.modeling.precision import with_precision

SIZE = 96


@pytest.fixture(scope="module")
def lite0() -> keras.Model:
    return build_backbone("efficientnet_lite0", 64)


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    """AlexNet's layers, narrow."""
    keras.utils.set_random_seed(2)
    return build_alexnet(SIZE, (4, 5, 6, 5, 4), 8)


@pytest.fixture
def photos(tmp_path) -> list:
    """Ten files of one grey each; the grey of file i is 20 i, so a batch tells which files it is made of."""
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for number, file in enumerate(files):
        Image.new("RGB", (SIZE, SIZE), (20 * number,) * 3).save(file)
    return files


def images_of(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, [count, size, size, 3]).astype(np.float32)


def with_head(part: keras.Model, head: keras.Model) -> keras.Model:
    return keras.Model(part.input, head(part.output))


def head_for(backbone: keras.Model) -> keras.Model:
    return keras.Sequential([keras.Input((backbone.output_shape[-1],)), keras.layers.Dense(2, activation="softmax")])


@pytest.mark.parametrize("stages", [1, 2, 4, 7])
def test_the_parts_of_lite0_make_the_whole(lite0, stages):
    frozen, rest = split_backbone(lite0, stages)
    images = images_of(2)
    np.testing.assert_array_equal(rest(frozen(images)), lite0(images))
    assert len(frozen.weights) + len(rest.weights) == len(lite0.weights)
    assert {id(w) for w in frozen.weights + rest.weights} == {id(w) for w in lite0.weights}
    ends = stage_ends(lite0)
    assert frozen.layers[-1].name == ends[-1 - stages]
    assert [layer.name for layer in rest.layers if layer.name in ends] == ends[-stages:]


@pytest.mark.parametrize("stages", range(1, 7))
def test_the_parts_of_a_network_without_residuals_make_the_whole(tiny, stages):
    frozen, rest = split_backbone(tiny, stages)
    images = images_of(2, SIZE)
    np.testing.assert_array_equal(rest(frozen(images)), tiny(images))
    assert {id(w) for w in frozen.weights + rest.weights} == {id(w) for w in tiny.weights}


def test_the_parts_of_a_resnet_make_the_whole():
    with with_precision("mixed_bfloat16"):
        backbone = build_backbone("resnet18", 32, "none")
    frozen, rest = split_backbone(backbone, 1)
    images = images_of(1, 32)
    activations = np.asarray(tf.cast(frozen(images), tf.float32))
    assert activations.shape == (1, 2, 2, 256) and len(np.unique(activations)) > 3
    np.testing.assert_array_equal(rest(activations), backbone(images))  # float32 on disk holds bfloat16 exactly


@pytest.mark.parametrize(("stages", "network", "count"), [(-1, "lite0", 8), (8, "lite0", 8), (0, "tiny", 7)])
def test_a_wrong_number_of_stages_is_answered(request, stages, network, count):
    name = {"lite0": "efficientnet_lite0", "tiny": "alexnet"}[network]
    sentence = f"TRAINABLE_STAGES is {stages}; {name} has {count} stages: allowed are 0 .* and 1 to {count - 1} "
    with pytest.raises(ValueError, match=sentence):
        split_backbone(request.getfixturevalue(network), stages)


def gradients(model: keras.Model, inputs: np.ndarray, variables: list) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        loss = keras.losses.sparse_categorical_crossentropy(np.arange(len(inputs)) % 2, model(inputs, training=True))
    return [np.asarray(gradient) for gradient in tape.gradient(loss, [variable.value for variable in variables])]


def test_gradients_are_those_of_the_whole_network_with_frozen_layers(lite0):
    backbone = keras.models.clone_model(lite0)
    backbone.set_weights(lite0.get_weights())
    frozen, rest = split_backbone(backbone, 2)
    head = head_for(backbone)
    for layer in frozen.layers:
        layer.trainable = False
    whole, learner = with_head(backbone, head), with_head(rest, head)
    variables = learner.trainable_variables
    assert [id(v) for v in whole.trainable_variables] == [id(v) for v in variables]
    images = images_of(4)
    expected = gradients(whole, images, variables)
    assert all(np.abs(gradient).max() > 0 for gradient in expected)
    for one, other in zip(gradients(learner, np.asarray(frozen(images)), variables), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_changes_the_last_stages_of_the_whole_network_and_nothing_else(tiny, photos, tmp_path):
    backbone = keras.models.clone_model(tiny)
    head = head_for(backbone)
    whole = with_head(backbone, head)
    frozen, rest = split_backbone(backbone, 3)
    before = {v.path: v.numpy() for v in whole.variables}
    targets = np.arange(10) % 2
    activations = cached_activations(frozen, photos, SIZE, tmp_path / "features", quiet=True)
    learner = with_head(rest, head)
    learner.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    validation = activations_in_order(activations, 4, targets)
    batches = activation_batches(activations, targets, 4, 0, epochs=3)
    log = learner.fit(batches, steps_per_epoch=3, epochs=3, validation_data=validation, verbose=0, shuffle=False)
    assert len(log.history["val_loss"]) == 3
    changed = {v.path.split("/")[-2] for v in whole.variables if not np.array_equal(v.numpy(), before[v.path])}
    assert {"conv5", "fc6", "fc7"} < changed and not changed & {"conv1", "conv2", "conv3", "conv4"}
    images = np.stack([preprocess(tf.io.read_file(str(file)), SIZE) for file in photos])
    np.testing.assert_allclose(whole(images), learner(np.asarray(activations)), rtol=1e-5, atol=1e-6)


def test_activations_are_streamed_to_disk_and_computed_once(tiny, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 1)  # bytes, so one batch at a time
    monkeypatch.setattr(module, "BATCH", 4)
    frozen, _ = split_backbone(tiny, 3)
    sizes, predict = [], module.predict_files

    def counting(model, files, *arguments, **options):
        sizes.append(len(files))
        return predict(model, files, *arguments, **options)

    monkeypatch.setattr(module, "predict_files", counting)
    activations = cached_activations(frozen, photos, SIZE, tmp_path / "features", quiet=True)
    assert isinstance(activations, np.memmap) and not activations.flags.writeable and activations.dtype == np.float32
    assert activations.shape == (10, *frozen.output_shape[1:]) and sizes == [4, 4, 2]
    images = np.stack([preprocess(tf.io.read_file(str(file)), SIZE) for file in photos])
    np.testing.assert_allclose(activations, frozen(images), rtol=1e-5, atol=1e-5)
    again = cached_activations(frozen, photos, SIZE, tmp_path / "features", quiet=True)
    np.testing.assert_array_equal(again, activations)
    assert sizes == [4, 4, 2] and len(list((tmp_path / "features").iterdir())) == 1


def test_the_cache_knows_images_order_weights_layer_and_precision(tiny, photos, tmp_path):
    def names(stages=3, files=photos, backbone=tiny):
        frozen, _ = split_backbone(backbone, stages)
        before = set(tmp_path.glob("features/*"))
        cached_activations(frozen, files, SIZE, tmp_path / "features", quiet=True)
        return len(set(tmp_path.glob("features/*")) - before)

    other = keras.models.clone_model(tiny)
    assert [names(), names(), names(files=photos[::-1]), names(files=photos[:9]), names(4)] == [1, 0, 1, 1, 1]
    assert [names(backbone=other), names(backbone=other)] == [1, 0]
    with with_precision("mixed_bfloat16"):
        half = build_alexnet(SIZE, (4, 5, 6, 5, 4), 8)
    half.set_weights(tiny.get_weights())
    assert names(backbone=half) == 1
    Image.new("RGB", (SIZE, SIZE), "red").save(photos[3])
    assert names() == 1


def test_an_unreadable_file_is_named_and_leaves_nothing_behind(tiny, photos, tmp_path):
    photos[4].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"4\.png cannot be read as an image"):
        cached_activations(split_backbone(tiny, 3)[0], photos, SIZE, tmp_path / "features", quiet=True)
    assert not list((tmp_path / "features").iterdir())


def test_batches_come_in_the_order_of_training_batches(photos):
    targets = np.arange(10)
    greys = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * 20
    arguments = {"batch_size": 4, "seed": 5, "epochs": 4, "first_epoch": 1}
    pairs = list(training_batches(photos, targets, SIZE, **arguments))
    own = list(activation_batches(greys, targets, **arguments))
    assert [len(y) for _, y in own] == [4, 4, 2] * 3
    for (images, one), (values, other) in zip(pairs, own, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(images[:, :1, :1, :1], values)
    in_order = list(activations_in_order(greys, 4, targets))
    np.testing.assert_array_equal(np.concatenate([values for values, _ in in_order]), greys)
    np.testing.assert_array_equal(np.concatenate([y for _, y in in_order]), targets)
