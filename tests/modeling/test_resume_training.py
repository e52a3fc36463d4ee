"""A training that was killed, at whatever moment and however often, ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import resumable_training
from resumable_training import EPOCHS, STEPS, build, train, weights

from tdsp_vision.modeling import resume
from tdsp_vision.modeling.resume import Checkpoint, fingerprint


class Killed(Exception):
    """Stands for the end of the process."""


class Kill(keras.callbacks.Callback):
    """Ends training after so many steps."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Killed


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def history(checkpoint: Checkpoint) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in checkpoint.rows]


def kill_after(folder: Path, steps: int, **arguments) -> None:
    with pytest.raises(Killed):
        train(folder, [Kill(steps)], **arguments)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def killed_half_way(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("half_way")
    kill_after(folder, 3 * STEPS + 1)
    return folder


@pytest.fixture
def half_way(killed_half_way, tmp_path) -> Path:
    """A folder with the checkpoint of a training that was killed in its fourth epoch."""
    return shutil.copytree(killed_half_way, tmp_path / "training")


def test_each_part_of_the_state_matters_in_this_training(undisturbed):
    """Were this not so, the comparisons below would prove little."""
    model, checkpoint, _ = undisturbed
    start = weights(build())
    assert len(start) == 10  # two convolutions' worth, four of batch normalization, two random states
    assert all(not np.array_equal(value, start[name]) for name, value in weights(model).items())
    assert 1 < checkpoint.best_epoch < EPOCHS  # so that the best epoch is neither the first nor the last


def test_killed_again_and_again_in_the_middle_of_epochs(tmp_path, undisturbed, capsys):
    for steps in (2, STEPS + 1, 3 * STEPS - 1):  # the first kill leaves nothing to go on with
        kill_after(tmp_path, steps)
    model, checkpoint, first = train(tmp_path)
    assert first == 3
    assert capsys.readouterr().out.splitlines() == [f"continues after epoch {n} of 6" for n in (1, 3)]
    assert same(weights(model), weights(undisturbed[0]))
    assert history(checkpoint) == history(undisturbed[1])
    assert [row["epoch"] for row in checkpoint.rows] == [1, 2, 3, 4, 5, 6]
    names = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds"]
    assert list(checkpoint.rows[-1]) == names and checkpoint.rows[0]["learning_rate"] == pytest.approx(0.1)
    assert checkpoint.best_epoch == undisturbed[1].best_epoch


def test_killed_while_the_checkpoint_is_written(tmp_path, undisturbed, monkeypatch):
    moments = {2: "before writing", 3: "half written", 4: "before renaming", 5: "after renaming"}
    write, savez = Checkpoint._write, np.savez

    def killing_write(self):
        moment = moments.get(len(self.rows))
        if moment == "before writing":
            raise Killed
        write(self)
        if moment == "after renaming":
            raise Killed

    def killing_savez(file, about, **values):
        savez(file, about=about, **values)
        moment = moments.get(len(json.loads(about.item())["rows"]))
        if moment in ("half written", "before renaming"):
            file.flush()
            length = file.tell() // (2 if moment == "half written" else 1)
            (tmp_path / f"{Path(file.name).name[:-4]}.left.npz").write_bytes(Path(file.name).read_bytes()[:length])
            raise Killed  # a draft stays behind, as after a real kill

    monkeypatch.setattr(Checkpoint, "_write", killing_write)
    monkeypatch.setattr(resume.np, "savez", killing_savez)
    files = []
    while moments:
        with pytest.raises(Killed):
            train(tmp_path)
        files.append(len(list(tmp_path.iterdir())))
        del moments[min(moments)]
    assert files == [1, 2, 2, 1]  # the draft of the kill before is gone
    model, _, first = train(tmp_path)
    assert first == 5 and same(weights(model), weights(undisturbed[0]))
    assert len(list(tmp_path.iterdir())) == 1


def test_stopping_early_counts_the_epochs_before_the_kill(tmp_path, capsys):
    whole, checkpoint, _ = train(tmp_path / "whole", patience=2)
    best, ran = checkpoint.best_epoch, len(checkpoint.rows)
    assert ran == best + 2 < EPOCHS
    kill_after(tmp_path / "killed", best * STEPS + STEPS + 1, patience=2)  # one bad epoch is over
    model, checkpoint, first = train(tmp_path / "killed", patience=2)
    assert first == best + 1 and len(checkpoint.rows) == ran and checkpoint.best_epoch == best
    assert same(weights(model), weights(whole))
    capsys.readouterr()
    model, checkpoint, first = train(tmp_path / "killed", patience=2)  # killed before the run was saved
    assert first == EPOCHS and len(checkpoint.rows) == ran
    assert capsys.readouterr().out == f"continues after epoch {ran} of 6, where it had stopped\n"
    assert same(weights(model), weights(whole))


def test_a_complete_training_is_not_repeated_until_discarded(tmp_path, undisturbed):
    folder = shutil.copytree(undisturbed[1].path.parent, tmp_path / "training")
    model, checkpoint, first = train(folder)
    assert first == EPOCHS and same(weights(model), weights(undisturbed[0]))
    assert history(checkpoint) == history(undisturbed[1])
    checkpoint.discard()
    checkpoint.discard()
    assert not list(folder.iterdir())


def test_loss_scale_continues(tmp_path):
    def model():
        inner = keras.optimizers.SGD(0.01, momentum=0.9)
        return build(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=2))

    whole, _, _ = train(tmp_path / "whole", model=model())
    kill_after(tmp_path / "killed", 3 * STEPS + 2, model=model())
    again, _, _ = train(tmp_path / "killed", model=model())
    assert float(whole.optimizer.dynamic_scale) == 8 * 2 ** (EPOCHS * STEPS // 2)
    for one, other in zip(whole.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert same(weights(whole), weights(again))


def restore(folder: Path, **arguments) -> tuple[int, str, bool]:
    """First epoch, the one warning there may be, and whether the model was left alone."""
    model = build(**arguments)
    before = weights(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = Checkpoint(folder, fingerprint({"patience": None}), EPOCHS).restore(model)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert len(messages) <= 1
    return first, "".join(messages), same(weights(model), before)


def test_a_damaged_checkpoint_is_set_aside(half_way):
    (file,) = half_way.iterdir()
    content = file.read_bytes()
    rng = random.Random(4)
    damaged = [b"", b"text", content[:100], content[:-1], content[len(content) // 2 :], bytes(len(content))]
    for _ in range(12):
        place = rng.randrange(len(content))
        damaged.append(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
    outcomes = []
    for bad in damaged:
        file.write_bytes(bad)
        first, message, untouched = restore(half_way)
        outcomes.append(first)
        if first:  # the bit was one that no reader looks at
            assert first == 3 and not message and not untouched
            continue
        assert untouched and "cannot be used (" in message and message.count("\n") == 0
        assert [path.name for path in half_way.iterdir()] == [f"{file.stem}.damaged"]
    assert outcomes[:6] == [0] * 6 and outcomes.count(0) > 12


def test_a_checkpoint_of_something_else_is_set_aside(half_way):
    (file,) = half_way.iterdir()
    content = file.read_bytes()
    first, message, untouched = restore(half_way, channels=5)
    assert first == 0 and untouched and "has shape (3, 3, 3, 4) where (3, 3, 3, 5) is needed" in message
    file.write_bytes(content)
    first, message, untouched = restore(half_way, optimizer=keras.optimizers.SGD())
    assert first == 0 and untouched and "arrays" in message
    other = Checkpoint(half_way, "0123456789abcdef", EPOCHS)
    other.path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"it belongs to training {file.stem}"):
        assert other.restore(build()) == 0


def test_another_setting_starts_anew(half_way, capsys):
    assert Checkpoint(half_way, fingerprint({"patience": 4}), EPOCHS).restore(build()) == 0
    assert capsys.readouterr().out == ""
    assert restore(half_way)[0] == 3


def test_the_file_is_plain(half_way):
    (file,) = half_way.iterdir()
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    with np.load(file, allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "fiuU" for name in stored.files)


def test_fingerprint_changes_with_settings_and_versions(monkeypatch):
    settings = {"EPOCHS": 3, "split": "abc"}
    name = fingerprint(settings)
    assert len(name) == 16 and name == fingerprint(dict(reversed(settings.items())))
    assert name != fingerprint(settings | {"EPOCHS": 4}) and name != fingerprint(settings | {"SEED": 0})
    with pytest.raises(TypeError):
        fingerprint({"augmenter": object()})
    monkeypatch.setattr(resume, "version", lambda package: "0")
    assert name != fingerprint(settings)


def test_training_that_diverged_says_so(tmp_path):
    with pytest.raises(ValueError, match="no number after any of 6 epochs.*lower LEARNING_RATE"):
        train(tmp_path, model=build(keras.optimizers.SGD(float("inf"))))


def test_an_unknown_value_to_monitor_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path, "x", 1)
    with pytest.raises(ValueError, match="'val_loss'; this training reports 'loss': give `fit` validation_data"):
        checkpoint.on_epoch_end(0, {"loss": 1.0})


def test_kill_minus_nine(tmp_path, undisturbed):
    """A real process, killed at a random moment of a step; another one, this one, ends like one left in peace."""
    command = [sys.executable, resumable_training.__file__, str(tmp_path)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet)
    for line in process.stdout:
        epoch, step = map(int, line.split())
        if (epoch, step) == (2, 1):
            break
    time.sleep(random.Random(9).uniform(0, 0.02))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    model, _, first = train(tmp_path)
    assert first >= 2 and same(weights(model), weights(undisturbed[0]))
