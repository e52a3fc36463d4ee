"""Parts of a sweep by themselves: progress on a terminal, the figure's groups, history, epochs told to the outside."""

import io
import json

import keras
import numpy as np
import pytest
from sweeping import toy_notebooks

from tdsp_vision.modeling import tracking
from tdsp_vision.modeling.resume import Checkpoint
from tdsp_vision.sweeps import worker
from tdsp_vision.sweeps.plan import plan_sweep
from tdsp_vision.sweeps.progress import SweepProgress, clock
from tdsp_vision.sweeps.results import in_words


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    return plan_sweep([("DROPOUT", "0.1,0.2,0.3")], {}, notebooks=toy_notebooks(tmp_path))


def make_run(trial, validation, test):
    folder = trial.outputs.runs / f"20260131-142501-{trial.name}"
    folder.mkdir(parents=True)
    content = {"validation": {"auc": validation}, "test": {"auc": test}, "seconds": {"train": 1.0}}
    (folder / "metrics.json").write_text(json.dumps(content))
    return {"status": "done", "run": folder.name, "seconds": 21.0}


def test_a_terminal_shows_each_trial_and_one_line_that_is_drawn_again(sweep):
    first, second, _ = sweep.grid()
    shown = Terminal()
    progress = SweepProgress(3, 0, 2, "auc", shown)
    progress.redraw(2)
    progress.ended(first, make_run(first, 0.9125, 0.8), before=False)
    progress.ended(second, {"status": "failed", "seconds": 3.0}, before=False)
    progress.redraw(1)
    progress.close()
    lines = shown.getvalue().split("\r\x1b[K")
    assert lines[1:] == [
        "0/3 ended, 2 running, 0:00 gone",
        "1/3 DROPOUT=0.1 ........................   21 s  validation auc 0.912\n",
        "2/3 DROPOUT=0.2 ........................    3 s  failed\n",
        "2/3 ended, 1 running, 0:00 gone, about 0:00 left",
        "",
    ]


def test_a_clock_reads_well():
    assert [clock(seconds) for seconds in (5, 65, 3909)] == ["0:05", "1:05", "1:05:09"]


def test_the_table_is_sorted_by_validation_whatever_the_test_says(sweep):
    pairs = zip(sweep.grid(), [(0.7, 0.99), (0.9, 0.5), (None, 0.8)], strict=True)
    ended = [(trial, make_run(trial, *values)) for trial, values in pairs]
    said = in_words(sweep, ended, "auc")
    assert [line.split()[:4] for line in said.splitlines()[1:4]] == [
        ["2", "0.2", "0.900", "-"],
        ["1", "0.1", "0.700", "-"],
        ["3", "0.3", "-", "-"],
    ]
    assert "Sorted by validation" in said and "3 of 3 done" in said


def test_history_gets_all_parameters_and_its_failure_does_not_cost_the_run(sweep, monkeypatch):
    trial = sweep.grid()[0]
    run = make_run(trial, 0.9, 0.8)["run"]
    logged = []
    monkeypatch.setattr(tracking, "log_run", lambda *given: logged.append(given))
    assert worker._attempt(trial) == {"status": "done", "run": run}
    ((outputs, folder, parameters, notebook),) = logged
    assert (outputs, folder.name, notebook) == (trial.outputs, run, trial.executed)
    assert (parameters["DROPOUT"], parameters["IMAGE_SIZE"], parameters["RUN_NAME"]) == (0.1, 224, trial.name)

    def unreachable(*given):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(tracking, "log_run", unreachable)
    said = worker._attempt(trial)
    assert said == {
        "status": "failed",
        "error": f"run {run} is kept, but not its history: ConnectionError: nobody answers",
    }
    assert folder.is_dir()


def test_a_training_tells_its_epochs_to_who_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_EPOCH_LOG", str(tmp_path / "epochs.jsonl"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["accuracy"])
    checkpoint = Checkpoint(tmp_path / "training", "toy", 2)
    data = np.zeros((4, 2)), np.zeros((4, 1))
    model.fit(*data, validation_data=data, epochs=2, verbose=0, callbacks=[checkpoint])
    told = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert told == [row | {"checkpoint": str(checkpoint.path)} for row in checkpoint.rows]
    assert [row["epoch"] for row in told] == [1, 2] and "val_accuracy" in told[0]
