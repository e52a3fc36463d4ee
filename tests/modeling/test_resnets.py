"""ResNets: published structure and sizes; presets in the formats of KerasHub and timm; blocks as they are defined."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from tdsp_vision.modeling.backbones import build_backbone, pooled_layers
from tdsp_vision.modeling.resnets import RESNETS, build_resnet

SIZE = 64
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, -2.0, -3.0]


def _images(size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, [2, size, size, 3]).astype(np.float32)


# torchvision's documentation gives the numbers with the classifier (512 or 2048 to 1000), KerasHub's list of presets
# those with the statistics of BatchNorm; the difference is two numbers per channel.
@pytest.mark.parametrize(
    ("name", "features", "torchvision", "statistics"),
    [
        ("resnet18", 512, 11_689_512, 11_186_112 - 11_176_512),
        ("resnet34", 512, 21_797_672, 2 * (64 * 7 + 128 * 9 + 256 * 13 + 512 * 7)),
        ("resnet50", 2048, 25_557_032, 23_561_152 - 23_508_032),
        ("resnet101", 2048, 44_549_160, 42_605_504 - 42_500_160),
        ("resnet152", 2048, 60_192_808, 58_295_232 - 58_143_808),
    ],
)
def test_the_numbers_of_parameters_are_the_published_ones(name, features, torchvision, statistics):
    network = build_backbone(name, 32, "none")
    learned = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert learned + features * 1000 + 1000 == torchvision
    assert network.count_params() == learned + statistics
    assert network.output_shape == (None, features)
    assert not any(isinstance(layer, keras.Model) for layer in network.layers)
    blocks = sum(RESNETS[name][1])
    assert sum(isinstance(layer, keras.layers.Add) for layer in network.layers) == blocks
    assert pooled_layers(network).output_shape[1] > features


def _timm_tensors(blocks: list[int]) -> dict[str, np.ndarray]:
    """Random weights of a ResNet of basic blocks, with timm's names and shapes."""
    rng = np.random.default_rng(0)
    tensors = {}

    def convolution(name, norm, out, inside, kernel):
        scale = np.sqrt(2 / (inside * kernel**2))
        tensors[f"{name}.weight"] = rng.normal(0, scale, (out, inside, kernel, kernel)).astype(np.float32)
        for kind, low, high in (("weight", 0.5, 1), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 1, 2)):
            tensors[f"{norm}.{kind}"] = rng.uniform(low, high, out).astype(np.float32)
        tensors[f"{norm}.num_batches_tracked"] = np.array(5, np.int64)

    convolution("conv1", "bn1", 64, 3, 7)
    before = 64
    for stage, count in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(count):
            place = f"layer{stage}.{block}"
            convolution(f"{place}.conv1", f"{place}.bn1", width, before, 3)
            convolution(f"{place}.conv2", f"{place}.bn2", width, width, 3)
            if before != width:
                convolution(f"{place}.downsample.0", f"{place}.downsample.1", width, before, 1)
            before = width
    tensors["fc.weight"], tensors["fc.bias"] = np.zeros((1000, 512), np.float32), np.zeros(1000, np.float32)
    return tensors


def _write_timm(folder: Path, tensors: dict[str, np.ndarray], **changes) -> Path:
    """A timm model as the hub has it: config.json, and model.safetensors (length of the header, header, values)."""
    folder.mkdir()
    trained = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear"}
    trained |= {"tag": "tv_in1k", "input_size": [3, 224, 224], "num_classes": 1000, "classifier": "fc"}
    config = {"architecture": "resnet34", "num_classes": 1000, "num_features": 512, "pretrained_cfg": trained}
    (folder / "config.json").write_text(json.dumps(config | changes))
    header, end = {}, 0
    for name, tensor in tensors.items():
        kind = {"f": "F32", "i": "I64"}[tensor.dtype.kind]
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
    return folder


@pytest.fixture(scope="module")
def timm_tensors():
    return _timm_tensors(RESNETS["resnet34"][1])


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory, timm_tensors):
    return _write_timm(tmp_path_factory.mktemp("timm") / "resnet34.tv_in1k", timm_tensors)


def _convolve(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Cross-correlation of [n, h, w, c] by PyTorch's [out, in, k, k], k // 2 zeros on every side."""
    pad = kernel.shape[-1] // 2
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ocij->nhwo", windows, kernel, optimize=True)


def _normalize(x: np.ndarray, tensors: dict, name: str) -> np.ndarray:
    mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _block(x: np.ndarray, tensors: dict, place: str, strides: tuple[int, ...]) -> np.ndarray:
    """Residual block with as many convolutions as there are strides (paper, figure 5), in float64."""
    y = x
    for number, stride in enumerate(strides, start=1):
        y = _normalize(_convolve(y, tensors[f"{place}.conv{number}.weight"], stride), tensors, f"{place}.bn{number}")
        y = np.maximum(y, 0) if number < len(strides) else y
    if f"{place}.downsample.0.weight" in tensors:
        kernel = tensors[f"{place}.downsample.0.weight"]
        x = _normalize(_convolve(x, kernel, max(strides)), tensors, f"{place}.downsample.1")
    return np.maximum(x + y, 0)


def _check_blocks(network: keras.Model, tensors: dict, blocks: list[tuple]) -> None:
    """Each named block alone: what goes in (the end of another layer) and what comes out."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    for before, block, strides in blocks:
        stage, _, number = block.removeprefix("stack").partition("_block")
        part = keras.Model(network.input, [network.get_layer(name).output for name in (before, f"{block}_out")])
        entry, got = (np.asarray(x, np.float64) for x in part(_images(), training=False))
        expected = _block(entry, tensors, f"layer{int(stage) + 1}.{number}", strides)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * expected.std(), err_msg=block)


@pytest.fixture(scope="module")
def resnet34(timm_folder):
    return build_backbone("resnet34", SIZE, str(timm_folder))


def test_resnet34_from_a_timm_folder_computes_what_it_should(resnet34, timm_tensors):
    x = _normalize(
        _convolve((_images() / 255 - (0.4, 0.5, 0.6)) / (0.2, 0.25, 0.3), timm_tensors["conv1.weight"], 2),
        timm_tensors,
        "bn1",
    )
    padded = np.pad(np.maximum(x, 0), [(0, 0), (1, 1), (1, 1), (0, 0)])
    stem = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(4, 5))
    got = keras.Model(resnet34.input, resnet34.get_layer("pool1_pool").output)(_images(), training=False)
    np.testing.assert_allclose(got, stem, atol=1e-4)
    blocks = [
        ("pool1_pool", "stack0_block0", (1, 1)),
        ("stack0_block2_out", "stack1_block0", (2, 1)),
        ("stack3_block1_out", "stack3_block2", (1, 1)),
    ]
    _check_blocks(resnet34, timm_tensors, blocks)


def test_every_tensor_of_a_timm_folder_has_its_place(resnet34, timm_tensors):
    used = 0
    for layer in resnet34.layers:
        if not layer.weights:
            continue
        stack, block, number, *_ = [*layer.name.removeprefix("stack").replace("block", "").split("_"), "", ""]
        kind = "conv" if layer.name.endswith("conv") else "bn"
        place = {"0": {"conv": "downsample.0", "bn": "downsample.1"}[kind]}.get(number, f"{kind}{number}")
        place = f"{kind}1" if layer.name.startswith("conv1") else f"layer{int(stack) + 1}.{block}.{place}"
        kinds = ("weight",) if kind == "conv" else ("weight", "bias", "running_mean", "running_var")
        for value, key in zip(layer.get_weights(), kinds, strict=True):
            tensor = timm_tensors[f"{place}.{key}"]
            np.testing.assert_array_equal(value, tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor)
            used += 1
    rest = [name for name in timm_tensors if name.endswith("num_batches_tracked") or name.startswith("fc.")]
    assert used == len(timm_tensors) - len(rest)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Folder and network of a KerasHub preset of ResNet-50, written by KerasHub, with random weights."""
    import keras_hub

    network = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
    )
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            values = [rng.uniform(low, high, shape) for low, high in ((0.5, 1), (-1, 1), (-1, 1), (1, 2))]
            layer.set_weights(values)
    folder = tmp_path_factory.mktemp("presets") / "resnet_50_imagenet"
    network.save_to_preset(str(folder))
    keras_hub.layers.ResNetImageConverter(image_size=(224, 224), scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    return folder, network


def test_resnet50_from_a_kerashub_preset_computes_what_it_should(preset):
    folder, original = preset
    network = build_backbone("resnet50", SIZE, str(folder))
    maps = original(_images() * np.float32(SCALE) + np.float32(OFFSET), training=False).numpy()
    got = network(_images(), training=False).numpy()
    assert got.std() > 0.01
    np.testing.assert_allclose(got, maps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    tensors = {}
    for layer in original.layers:
        if layer.name.startswith("stack") and layer.weights:
            stack, block, number, kind = layer.name.removeprefix("stack").replace("block", "").split("_")
            place = {"0conv": "downsample.0", "0bn": "downsample.1"}.get(number + kind, kind + number)
            values = [value.transpose(3, 2, 0, 1) if value.ndim == 4 else value for value in layer.get_weights()]
            for value, key in zip(values, ("weight", "bias", "running_mean", "running_var"), strict=False):
                tensors[f"layer{int(stack) + 1}.{block}.{place}.{key}"] = value
    blocks = [("pool1_pool", "stack0_block0", (1, 1, 1)), ("stack0_block2_out", "stack1_block0", (1, 2, 1))]
    _check_blocks(network, tensors, [*blocks, ("stack2_block0_out", "stack2_block1", (1, 1, 1))])


def test_without_an_image_converter_the_normalization_is_imagenets(preset, tmp_path):
    folder = shutil.copytree(preset[0], tmp_path / "bare")
    (folder / "image_converter.json").unlink()
    layer = build_resnet("resnet50", 32, folder).get_layer("normalize")
    np.testing.assert_allclose(layer(np.full([1, 1, 1, 3], 255.0)), [[[[2.2489, 2.4286, 2.64]]]], atol=1e-4)


def test_a_folder_that_does_not_fit_is_refused_in_one_sentence(timm_folder, timm_tensors, preset, tmp_path):
    with pytest.raises(ValueError, match=r"does not hold resnet18: its stackwise_num_blocks is \[3, 4, 6, 3\], not"):
        build_backbone("resnet18", 32, str(timm_folder))
    with pytest.raises(ValueError, match="does not hold resnet34: its block_type is bottleneck_block, not basic"):
        build_backbone("resnet34", 32, str(preset[0]))
    part = {name: tensor for name, tensor in timm_tensors.items() if not name.startswith("layer4.2")}
    for number, (tensors, changes) in enumerate([(part, {}), ({}, {"architecture": "vgg16"}), ({}, {})]):
        folder = _write_timm(tmp_path / str(number), tensors, **changes)
        with pytest.raises(ValueError, match=f"{folder} cannot be read as a preset of resnet34: ") as caught:
            build_backbone("resnet34", 32, str(folder))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"registered_name": "os>system", "class_name": "system"}'])
def test_a_config_of_anything_else_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="cannot be read as a preset of resnet18"):
        build_backbone("resnet18", 32, str(tmp_path))


def test_a_path_without_a_preset_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    for wrong in (tmp_path, tmp_path / "model.safetensors", tmp_path / "none"):
        with pytest.raises(ValueError, match=f"WEIGHTS is '{wrong}'; .* folder with config.json"):
            build_backbone("resnet34", 32, str(wrong))


def _objects(config: object) -> Iterator[dict]:
    """Every object that a saved model's configuration names, however deep: its class, module and registered name."""
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    if isinstance(config, dict) and "module" in config:
        yield config
    for part in parts:
        yield from _objects(part)


def test_a_saved_network_needs_keras_alone(tmp_path):
    network = build_backbone("resnet18", 32, "none")
    network.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        named = list(_objects(json.loads(archive.read("config.json"))))
    assert {item["class_name"] for item in named} >= {"Functional", "Rescaling", "Conv2D", "BatchNormalization", "Add"}
    for item in named:
        assert item["module"] is None or item["module"].split(".")[0] == "keras", item["class_name"]
        assert item["registered_name"] in (None, item["class_name"])
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(_images(32), training=False), network(_images(32), training=False))
