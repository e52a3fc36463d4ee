"""A run in a process of its own: what is known of it, how it ends, and that it never outlives who started it.

Scripts of a few lines stand in for the runner, except where the end of a kernel is the point: there it is the real
runner with the toy notebooks of tests/notebooks.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tdsp_vision.widgets.background_run import BackgroundRun

TOYS = Path(__file__).parents[1] / "notebooks"
RUNNER = f"""
import sys
from pathlib import Path
from tdsp_vision import paths
for stage, name in (("data", "data"), ("model", "modeling"), ("deploy", "deployment")):
    paths.NOTEBOOKS[stage] = Path({str(TOYS)!r}) / (name + ".ipynb")
from tdsp_vision.__main__ import main
main(sys.argv[1:])
"""
WAITING = ["run", "--watched", "--stage", "model", "-p", "CLASSIFIER", "svm", "-p", "FAIL", "wait"]
LINE = '{"step": 1, "steps": 1, "title": "toy", "notebook": "/n.ipynb", "cell": 2, "cells": 3, "seconds": 4}'


def ended(script, *arguments):
    """The run of a script, after its end."""
    run = BackgroundRun([sys.executable, "-c", script])
    run.start(arguments)
    run.wait()
    return run


def test_progress_and_words_are_told_apart():
    run = ended(f"import sys; print({LINE!r}); print('{{1}} of', sys.argv[1:])", "-p", "A", "b c")
    assert (run.status, run.progress["cell"], run.going) == ("done", 2, False)
    assert run.said == "{1} of ['-p', 'A', 'b c']\n"


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("pass", "done", ""),
        ("raise SystemExit('no such image')", "failed", "no such image\n"),
        ("import sys; sys.stderr.write('gone'); sys.exit(130)", "stopped", "gone"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "The run was ended by SIGKILL; often it is a lack of memory."),
    ],
)
def test_the_exit_code_says_how_it_ended(script, status, said):
    run = ended(script)
    assert (run.status, run.said) == (status, said)


def test_one_run_at_a_time_and_a_new_one_forgets_the_last():
    run = BackgroundRun([sys.executable, "-c", f"import sys; print({LINE!r}, flush=True); sys.stdin.read()"])
    run.stop()
    assert run.status == "idle"
    run.start([])
    with pytest.raises(RuntimeError, match="A run is going already; stop it"):
        run.start([])
    run.stop()
    assert run.going
    run.wait()
    assert (run.status, run.progress["cell"]) == ("done", 2)
    seen = []
    run.observe(lambda change: seen.append((change.name, change.new)))
    run.start([])
    assert ("progress", {}) in seen and ("status", "running") in seen
    run.stop()
    run.wait()


def test_an_error_while_following_is_shown_and_ends_the_process(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))
    run = BackgroundRun([sys.executable, "-c", f"import sys; print({LINE!r}, flush=True); sys.stdin.read()"])

    def break_down(change):
        if change.new:
            raise KeyError("no front end")

    run.observe(break_down, "progress")
    run.start([])
    run.wait()
    assert run.status == "failed"
    assert run.said == "The run was ended because it could not be followed: KeyError('no front end')"
    assert [type(error) for error in raised] == [KeyError]


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """Returns a function that waits for the notebook's kernel in this workspace, and gives its process."""
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))

    def kernel():
        note = tmp_path / "outputs/toys/kernel.pid"
        while not note.is_file():
            time.sleep(0.05)
        return psutil.Process(int(note.read_text()))

    return kernel


def test_stop_ends_runner_and_kernel_and_keeps_what_was_run(waiting):
    deaf = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a Jupyter kernel is between two cells
    try:
        run = BackgroundRun([sys.executable, "-c", RUNNER])
        run.start(WAITING)
    finally:
        signal.signal(signal.SIGINT, deaf)
    kernel = waiting()
    run.stop()
    assert run.status == "stopping"
    run.wait()
    assert (run.status, run.said) == ("stopped", "interrupted in stage modeling (svm); run again to go on\n")
    assert not kernel.is_running()
    notebook = Path(run.progress["notebook"])
    assert (notebook.name, notebook.is_file()) == ("model-svm.ipynb", True)
    assert (run.progress["cell"], run.progress["cells"]) == (4, 7)


def test_a_run_ends_with_the_process_that_started_it_even_if_that_is_killed(waiting):
    starter = f"""
from tdsp_vision.widgets.background_run import BackgroundRun
run = BackgroundRun([{sys.executable!r}, "-c", {RUNNER!r}])
run.start({WAITING!r})
run.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", starter], env=dict(os.environ))
    kernel = waiting()
    (runner,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs([runner, kernel], timeout=60)
    assert alive == []
