"""What enters the manifest: whole images that TensorFlow decodes, and nothing else."""

import itertools
import random
import warnings

import imagehash
import numpy as np
import pytest
import tensorflow as tf
import zoo
from PIL import Image

from tdsp_vision.data import images
from tdsp_vision.data.images import ImageFacts, RejectedImage, as_rgb, inspect_image, inspect_images, upright_copy
from tdsp_vision.modeling.batches import preprocess

WHOLE, ODD, REFUSED = zoo.whole_images(), zoo.odd_but_usable(), zoo.refused()
pytestmark = [  # Pillow on damaged bytes, one by one; `inspect_images` keeps it quiet
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
JPEG_ROUNDING = 6  # values; two decoders round the same coefficients in different ways


@pytest.fixture
def verdict(tmp_path):
    """Facts of some bytes, or None where they are rejected."""

    def judge(content: bytes) -> ImageFacts | None:
        (tmp_path / "file").write_bytes(content)
        try:
            return inspect_image(tmp_path / "file")
        except RejectedImage as reason:
            assert str(reason).strip(), "a rejection without a reason"
            return None

    return judge


def decodes(content: bytes) -> bool:
    """Whether the model can be given this file, at full size and at the reduced size of large files."""
    try:
        for size in (16, 64):
            assert preprocess(tf.constant(content), size).shape == (size, size, 3)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def reason_against(path) -> str:
    with pytest.raises(RejectedImage) as caught:
        inspect_image(path)
    return str(caught.value)


@pytest.mark.parametrize("name", WHOLE | ODD)
def test_whole_images_are_accepted_and_seen_by_the_model_as_by_pillow(name, tmp_path, verdict):
    facts = verdict((WHOLE | ODD)[name])
    assert facts is not None
    upright_copy(tmp_path / "file", tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert (content == (WHOLE | ODD)[name]) == (name != "rotated_by_exif.jpg")
    assert decodes(content)
    model_sees = tf.io.decode_image(content, channels=3, expand_animations=False).numpy().astype(int)
    assert (facts.height, facts.width) == model_sees.shape[:2]
    with Image.open(tmp_path / "file") as image:
        assert image.convert("RGB").size == (facts.width, facts.height)
        difference = np.abs(np.asarray(as_rgb(image)).astype(int) - model_sees).max()
        assert difference <= (JPEG_ROUNDING if image.format in ("JPEG", "MPO") else 0)


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_with_its_reason(name, tmp_path):
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    assert reason in reason_against(tmp_path / name)


@pytest.mark.parametrize("name", WHOLE)
def test_no_cut_file_is_accepted(name, verdict):
    content = WHOLE[name]
    step = max(1, len(content) // 40)
    places = {*range(1, 30), *range(30, len(content), step), *range(len(content) - 30, len(content))}
    places |= {len(content) * percent // 100 for percent in (10, 50, 90, 99)}
    assert [place for place in sorted(places) if verdict(content[:place])] == []


def test_a_cut_second_picture_behind_a_whole_one_does_no_harm(verdict):
    content = ODD["two_pictures.jpg"]
    for cut in (content[:-2], content[: len(content) * 3 // 4]):
        assert verdict(cut) is None or decodes(cut)
    assert verdict(content[: len(content) // 4]) is None


@pytest.mark.parametrize("name", WHOLE)
def test_the_model_can_decode_what_is_accepted_with_changed_bytes(name, tmp_path, verdict):
    content, rng = WHOLE[name], random.Random(name)
    surprises = []
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 4])):
            reach = rng.choice([60, len(changed)])  # half of them in the header
            changed[rng.randrange(min(reach, len(changed)))] = rng.randrange(256)
        facts = verdict(bytes(changed))
        if facts:
            upright_copy(tmp_path / "file", tmp_path / "file")
        if facts and not decodes((tmp_path / "file").read_bytes()):
            surprises.append(
                [(at, new) for at, (old, new) in enumerate(zip(content, changed, strict=True)) if old != new]
            )
    assert surprises == []


def test_facts_are_those_of_the_bytes_and_the_picture(tmp_path, verdict):
    facts = verdict(WHOLE["true_color.png"])
    assert len(facts.sha256) == 64 and len(facts.dhash) == images.HASH_SIDE**2 // 4
    assert (facts.width, facts.height) == (zoo.WIDTH, zoo.HEIGHT)
    assert facts == verdict(WHOLE["true_color.png"])
    repacked = verdict(zoo.encode(zoo.picture(), "PNG", compress_level=0))
    assert repacked.sha256 != facts.sha256 and repacked.dhash == facts.dhash
    other = verdict(zoo.encode(zoo.picture(5), "PNG"))
    assert imagehash.hex_to_hash(other.dhash) - imagehash.hex_to_hash(facts.dhash) > 40


def test_sixteen_bit_pictures_do_not_all_look_alike(verdict):
    """Pillow's own conversion turns nearly all of their values to white: every two would be duplicates."""
    hashes = {}
    for seed, bits in itertools.product((0, 6), (8, 16)):
        ramp = zoo.gray_ramp(seed)
        pixels = ramp if bits == 16 else (ramp >> 8).astype(np.uint8)
        facts = verdict(zoo.encode(Image.fromarray(pixels), "PNG"))
        hashes[seed, bits] = imagehash.hex_to_hash(facts.dhash)
    assert hashes[0, 16] == hashes[0, 8] and hashes[6, 16] == hashes[6, 8]
    assert hashes[0, 16] - hashes[6, 16] > 10


def test_limits_on_bytes_and_pixels_hold_at_their_edge(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(zoo.encode(zoo.picture(0, 32, 32), "PNG"))
    monkeypatch.setattr(images, "MAX_PIXELS", 32 * 32)
    monkeypatch.setattr(images, "MAX_BYTES", path.stat().st_size)
    assert inspect_image(path).width == 32
    monkeypatch.setattr(images, "MAX_PIXELS", 32 * 32 - 1)
    assert "too large: 32 x 32 pixels" in reason_against(path)
    monkeypatch.setattr(images, "MAX_BYTES", path.stat().st_size - 1)
    assert "bytes; at most" in reason_against(path)


def test_many_at_once_give_one_answer_each_in_order(tmp_path):
    contents = [*WHOLE.values(), *(content for content, _ in REFUSED.values())]
    paths = [tmp_path / f"{number:03}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    found = inspect_images([*paths, tmp_path / "folder.jpg", tmp_path / "gone.jpg"], quiet=True)
    assert [type(one) for one in found[: len(WHOLE)]] == [ImageFacts] * len(WHOLE)
    assert all(isinstance(one, RejectedImage) for one in found[len(WHOLE) :])
    assert len(found) == len(contents) + 2
    assert [str(one) for one in found[-2:]] == [
        "cannot be read: Is a directory",
        "cannot be read: No such file or directory",
    ]
    assert inspect_images([], quiet=True) == []


def test_looking_at_images_leaves_files_and_warning_filters_alone(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(60)]
    for number, path in enumerate(paths):
        path.write_bytes(zoo.encode(zoo.picture(number), "PNG"))
    before, stamps = list(warnings.filters), [path.stat().st_mtime_ns for path in paths]
    inspect_images(paths, quiet=True)
    assert warnings.filters == before
    assert [path.stat().st_mtime_ns for path in paths] == stamps
