"""Curves while training: lines in headless runs, one figure in a notebook that is watched, and rows in both."""

import re
from types import SimpleNamespace

import keras
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tdsp_vision.modeling import curves
from tdsp_vision.modeling.curves import LiveCurves
from tdsp_vision.modeling.plots import learning_curves
from tdsp_vision.modeling.schedules import learning_rate_schedule


def _fit(live: LiveCurves, schedule="[0.1] + [0.01]*2", initial_epoch: int = 0, callbacks=()):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    rates = learning_rate_schedule(schedule, 0.1, 3, 2)
    model.compile(keras.optimizers.AdamW(rates), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.iterations.assign(2 * initial_epoch)  # as a resumed run has it
    x, y = np.random.default_rng(0).normal(size=[8, 4]), np.arange(8) % 2
    options = {"validation_data": (x, y), "verbose": 0, "initial_epoch": initial_epoch}
    return model.fit(x, y, batch_size=4, epochs=3, callbacks=[live, *callbacks], **options)


COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]


def test_headless_it_is_one_line_per_epoch(capsys):
    live = LiveCurves(3)
    log = _fit(live)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    line = (
        r"epoch 2/3  loss \d\.\d{3}  accuracy \d\.\d{3}  val_loss \d\.\d{3}  val_accuracy \d\.\d{3}  rate 1.0e-02  0 s"
    )
    assert re.fullmatch(line, lines[1]), lines[1]
    assert live.history.columns.tolist() == COLUMNS
    assert live.history.epoch.tolist() == [1, 2, 3]
    np.testing.assert_allclose(live.history.learning_rate, [0.1, 0.01, 0.01], rtol=1e-6)
    for name in COLUMNS[1:5]:
        assert live.history[name].tolist() == pytest.approx(log.history[name])
    assert all(type(value) in (int, float) for row in live.rows for value in row.values())
    assert (live.history.seconds > 0).all()


def test_callbacks_after_it_keep_rate_and_seconds():
    seen = []
    later = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    live = LiveCurves(3)
    _fit(live, callbacks=[later])
    assert [(row["learning_rate"], row["seconds"]) for row in seen] == [
        (row["learning_rate"], row["seconds"]) for row in live.rows
    ]


def test_a_resumed_run_continues_its_rows(capsys):
    whole = LiveCurves(3)
    _fit(whole)
    given = tuple(whole.rows)
    resumed = LiveCurves(3, given)  # the third epoch is trained once more
    _fit(resumed, initial_epoch=2)
    assert resumed.history.epoch.tolist() == [1, 2, 3]
    assert resumed.rows[:2] == whole.rows[:2] and resumed.rows[2]["learning_rate"] == whole.rows[2]["learning_rate"]
    assert len(given) == 3 and capsys.readouterr().out.count("epoch 3/3") == 2


def test_who_is_watched(monkeypatch):
    shells = {"kernel": SimpleNamespace(kernel=object()), "terminal": SimpleNamespace(), "script": None}
    seen = {}
    for name, shell in shells.items():
        monkeypatch.setattr(curves, "get_ipython", lambda shell=shell: shell)
        for headless in ("", "0", "1"):
            monkeypatch.setenv("TDSP_HEADLESS", headless)
            seen[name, headless] = curves.in_notebook()
    assert {place for place, watched in seen.items() if watched} == {("kernel", ""), ("kernel", "0")}


SETUP = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from types import SimpleNamespace
from tdsp_vision.modeling.curves import LiveCurves

def train():
    live = LiveCurves(3)
    live.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1)))
    for epoch in range(3):
        live.on_epoch_begin(epoch)
        live.on_epoch_end(epoch, {"accuracy": 0.5, "loss": 0.7 - epoch / 10, "val_accuracy": 0.5, "val_loss": 0.6})
"""


def test_in_a_real_kernel_one_figure_is_drawn_anew(monkeypatch):
    monkeypatch.delenv("TDSP_HEADLESS", raising=False)
    cells = [SETUP, "train()", "os.environ['TDSP_HEADLESS'] = '1'\ntrain()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    shown = []

    class Client(NotebookClient):
        def process_message(self, message, cell, index):
            shown.append((index, message["msg_type"]))
            return super().process_message(message, cell, index)

    Client(notebook, kernel_name="python3").execute()
    assert [shown.count((1, kind)) for kind in ("display_data", "update_display_data", "stream")] == [1, 2, 0]
    (figure,) = notebook.cells[1].outputs
    assert "image/png" in figure.data
    assert {output.output_type for output in notebook.cells[2].outputs} == {"stream"}
    assert "".join(output.text for output in notebook.cells[2].outputs).count("\n") == 3


def test_a_history_becomes_curves():
    live = LiveCurves(3)
    _fit(live)
    np.testing.assert_array_equal(learning_curves(live.history, 2).axes[0].lines[0].get_ydata(), live.history.loss)
