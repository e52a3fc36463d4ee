"""Fetching weights: from a server on loopback that also misbehaves; without a network, one sentence."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tdsp_vision.modeling import pretrained
from tdsp_vision.modeling.backbones import build_backbone
from tdsp_vision.modeling.pretrained import fetch, weights_file

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # the name that http.server looks for
        self.server.asked.append(self.path)
        missing = self.path == "/missing"
        self.send_response(404 if missing else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(b"" if missing else CONTENT[: 300_000 if self.path == "/cut" else None])

    def log_message(self, *_):
        """Nothing on the terminal."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_is_fetched_once(server, tmp_path, capsys):
    for _ in range(2):
        assert fetch(f"{server.url}/w.pth", tmp_path / "models" / "w.pth", SHA256).read_bytes() == CONTENT
    assert server.asked == ["/w.pth"]
    assert "w.pth: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["cut", "missing", "changed"])
def test_nothing_half_written_stays(server, tmp_path, path):
    with pytest.raises(OSError):
        fetch(f"{server.url}/{path}", tmp_path / "w.pth", "0" * 64 if path == "changed" else SHA256)
    assert not list(tmp_path.iterdir())
    assert fetch(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256).read_bytes() == CONTENT


def test_alexnets_weights_are_fetched_to_the_folder_of_keras(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = pretrained.Source(f"{server.url}/alexnet-owt-7be5be79.pth", "that file", SHA256)
    monkeypatch.setitem(pretrained.SOURCES, "alexnet", source)
    assert weights_file("alexnet", "imagenet") == tmp_path / "models" / "alexnet-owt-7be5be79.pth"


def test_a_wrong_checksum_is_said(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setitem(pretrained.SOURCES, "alexnet", pretrained.Source(f"{server.url}/a.pth", "that file", "0" * 64))
    with pytest.raises(ConnectionError, match=r"/a.pth \(1,280,000 bytes came, and their sha256 is not 0000"):
        weights_file("alexnet", "imagenet")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alexnet", ["https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "bring that file", "its path"]),
        (
            "resnet18",
            ["kaggle.com/models/keras/resnetv1/keras/resnet_18_imagenet/3", "model.weights.h5", "their folder"],
        ),
        ("resnet34", ["https://huggingface.co/timm/resnet34.tv_in1k", "model.safetensors", "their folder"]),
        ("resnet152", ["resnet_152_imagenet"]),
    ],
)
def test_without_a_network_one_sentence_says_what_to_do(name, words, tmp_path, monkeypatch):
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    for variable in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ConnectionError) as caught:
        build_backbone(name, 96, "imagenet")
    message = str(caught.value)
    assert message.startswith(f"The ImageNet weights of {name} could not be fetched from https://")
    assert all(word in message for word in [*words, "in WEIGHTS"]) and "\n" not in message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_kaggle_is_asked_for_the_preset_of_one_version(monkeypatch, tmp_path):
    import kagglehub

    asked = []
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: asked.append(handle) or str(tmp_path))
    assert weights_file("resnet101", "imagenet") == tmp_path
    assert asked == ["keras/resnetv1/keras/resnet_101_imagenet/3"]


def test_the_presets_are_those_that_kerashub_names():
    from keras_hub.models import ResNetBackbone

    for depth in (18, 50, 101, 152):
        handle = ResNetBackbone.presets[f"resnet_{depth}_imagenet"]["kaggle_handle"]
        assert pretrained.SOURCES[f"resnet{depth}"].address.endswith(handle.removeprefix("kaggle://"))


def _hub(monkeypatch, folder: Path, etag: str) -> list:
    """Hugging Face's client, without a network: downloads land in `folder`."""
    import huggingface_hub as hub

    asked = []

    def download(repository, file, revision):
        asked.append((repository, file, revision))
        (folder / file).write_bytes(CONTENT)
        return str(folder / file)

    def cached(repository, file, revision):
        return str(folder / file) if (folder / file).is_file() else None

    monkeypatch.setattr(hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: SimpleNamespace(etag=etag))
    monkeypatch.setattr(hub, "hf_hub_download", download)
    return asked


def test_hugging_face_is_asked_for_two_files_of_one_commit(monkeypatch, tmp_path):
    asked = _hub(monkeypatch, tmp_path, SHA256)
    for _ in range(2):
        assert weights_file("resnet34", "imagenet") == tmp_path
    commit = "c983eba7f5e69bc3548a626d1b0b0b914e5de3a6"
    assert asked == [("timm/resnet34.tv_in1k", file, commit) for file in ("config.json", "model.safetensors")]


def test_a_changed_file_from_hugging_face_is_not_kept(monkeypatch, tmp_path):
    _hub(monkeypatch, tmp_path, "0" * 64)
    with pytest.raises(ConnectionError, match="the content of model.safetensors is not the expected one"):
        weights_file("resnet34", "imagenet")
    assert not (tmp_path / "model.safetensors").exists()
