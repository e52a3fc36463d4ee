"""Precision: the rule of "auto", the policy given back, and scores and files that are float32."""

import keras
import numpy as np
import pytest

from tdsp_vision.modeling import precision
from tdsp_vision.modeling.backbones import BACKBONES, build_backbone
from tdsp_vision.modeling.precision import as_float32, choose_precision, with_precision


@pytest.fixture
def machine(monkeypatch):
    """Pretends a machine: instruction sets of its processor, compute capability of its GPU."""

    def pretend(flags=(), capability=None):
        monkeypatch.setattr(precision, "cpu_flags", lambda: set(flags))
        monkeypatch.setattr(precision, "gpu_capability", lambda: capability)

    return pretend


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_auto_on_a_processor_with_bfloat16(machine, backbone, flag):
    machine(["avx2", flag])
    policy, reason = choose_precision("auto", backbone)
    assert policy == ("float32" if backbone == "efficientnet_lite0" else "mixed_bfloat16")
    assert reason.startswith(f"{policy}: ") and reason.endswith(".")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_auto_on_any_other_processor(machine, backbone):
    machine(["avx2", "avx512f"])
    assert choose_precision("auto", backbone)[0] == "float32"


@pytest.mark.parametrize(
    ("capability", "policy"),
    [((9, 0), "mixed_bfloat16"), ((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((7, 0), "mixed_float16")]
    + [((6, 1), "float32"), ((0, 0), "float32")],
)
def test_auto_on_a_gpu(machine, capability, policy):
    machine(["avx512_bf16"], capability)
    for backbone in ("resnet50", "efficientnet_lite0"):
        assert choose_precision("auto", backbone)[0] == policy


def test_what_is_asked_for_is_taken(machine):
    machine()
    assert [choose_precision(name, "resnet18")[0] for name in ("float32", "mixed_bfloat16")] == [
        "float32",
        "mixed_bfloat16",
    ]
    machine(capability=(7, 5))
    assert choose_precision("mixed_float16", "resnet18")[0] == "mixed_float16"


@pytest.mark.parametrize(
    ("asked", "message"), [("mixed_float16", "PRECISION is 'mixed_float16', .*GPU"), ("bf16", "allowed are 'auto'")]
)
def test_refusals(machine, asked, message):
    machine(["avx512_bf16"])
    with pytest.raises(ValueError, match=message):
        choose_precision(asked, "resnet18")


def test_this_machine_gives_an_answer():
    assert choose_precision("auto", "resnet18") == choose_precision("auto", "resnet18")


def test_flags_are_read_as_linux_writes_them(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "CPU_INFO", info)
    assert precision.cpu_flags() == set()
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n")
    assert precision.cpu_flags() == {"fpu", "avx2", "avx512_bf16"}
    info.write_text("processor : 0\nFeatures : fp asimd bf16\n")
    assert precision.cpu_flags() == set()


def test_the_lowest_of_several_gpus_counts(monkeypatch):
    found = {"a": {"compute_capability": (9, 0)}, "b": {"compute_capability": (7, 5)}, "c": {}}
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda kind: list(found))
    monkeypatch.setattr(precision.tf.config.experimental, "get_device_details", found.get)
    assert precision.gpu_capability() == (0, 0)
    del found["c"]
    assert precision.gpu_capability() == (7, 5)
    found.clear()
    assert precision.gpu_capability() is None


def test_the_policy_comes_back_even_after_an_error():
    before = keras.config.dtype_policy()
    with pytest.raises(ZeroDivisionError), with_precision("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        raise ZeroDivisionError
    assert keras.config.dtype_policy() == before and keras.layers.Dense(1).compute_dtype == "float32"


def _classifier(backbone: keras.Model) -> keras.Model:
    features = backbone.output_shape[1]
    scores = keras.layers.Dense(2, activation="softmax", dtype="float32", name="scores")
    head = keras.Sequential([keras.Input((features,)), keras.layers.Dropout(0.5), scores], name="head")
    return keras.Model(backbone.input, head(backbone.output), name="classifier")


def _policies(model: keras.Model) -> set[str]:
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


def _small(policy: str) -> keras.Model:
    with with_precision(policy):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((16, 16, 3))
        x = keras.layers.Conv2D(6, 3, name="conv")(keras.layers.Rescaling(1 / 255)(inputs))
        block = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.ReLU()], name="block")
        x = keras.layers.GlobalAveragePooling2D()(block(x))
        model = _classifier(keras.Model(inputs, x))
        model.get_layer("conv").trainable = False
        rng = np.random.default_rng(0)
        model.set_weights([abs(rng.normal(size=w.shape)) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_copy_is_the_float32_network(policy, tmp_path):
    model = _small(policy)
    assert _policies(model) == {policy, "float32"}
    model.get_layer("head").compile("adam", "sparse_categorical_crossentropy")  # the head learns alone first
    model.compile("adam", "sparse_categorical_crossentropy")
    copy = as_float32(model)
    assert _policies(copy) == {"float32"} and _policies(model) == {policy, "float32"}
    assert not copy.compiled and not copy.get_layer("head").compiled
    assert copy.name == "classifier" and not copy.get_layer("conv").trainable
    assert [layer.name for layer in copy._flatten_layers()] == [layer.name for layer in model._flatten_layers()]
    images = np.random.default_rng(1).uniform(0, 255, [5, 16, 16, 3]).astype("float32")
    reference = _small("float32")
    reference.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy.predict(images, verbose=0), reference.predict(images, verbose=0))
    assert np.abs(model.predict(images, verbose=0) - reference.predict(images, verbose=0)).max() > 0
    copy.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert _policies(loaded) == {"float32"}
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), copy.predict(images, verbose=0))


def test_the_copy_shares_nothing_with_the_model():
    model = _small("mixed_bfloat16")
    before = model.get_weights()
    copy = as_float32(model)
    copy.set_weights([weight + 1 for weight in copy.get_weights()])
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_real_network():
    with with_precision("mixed_bfloat16"):
        model = _classifier(build_backbone("resnet18", 32, "none"))
    copy = as_float32(model)
    assert "mixed_bfloat16" in _policies(model) and _policies(copy) == {"float32"}
    reference = _classifier(build_backbone("resnet18", 32, "none"))
    reference.set_weights(model.get_weights())
    images = np.random.default_rng(1).uniform(0, 255, [2, 32, 32, 3]).astype("float32")
    np.testing.assert_array_equal(copy(images), reference(images))
