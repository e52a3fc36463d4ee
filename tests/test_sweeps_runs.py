"""Sweeps that run: results, failures, two at once, interruption, and `kill -9` at random moments."""

import csv
import random
import signal
import time

import psutil
import pytest
from sweeping import executions, finish, read_json, runs, start_sweep, toy_notebooks

from tdsp_vision.sweeps.plan import plan_sweep
from tdsp_vision.sweeps.trial import run_trial


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    return toy_notebooks(tmp_path)


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def trial_processes(workspace):
    """Processes, kernels too, that belong to any trial of any sweep in this workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TDSP_TRIAL", "").startswith(str(workspace)):
                found.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found


def test_failing_trials_do_not_stop_the_others_and_are_tried_again(toys, tmp_path):
    command = ("-g", "FAIL", "no,error,die", "-g", "DROPOUT", "0.1", "--jobs", "3")
    code, printed = finish(start_sweep(toys, tmp_path, *command))
    assert code == 1, printed
    assert (
        "trial 2 failed, DROPOUT=0.1 FAIL=error: cell In [3]: KeyError: 'missing image' (outputs/toys/sweeps/"
        in printed
    )
    assert "trial 3 failed, DROPOUT=0.1 FAIL=die: code cell 3 of 3: Kernel died" in printed
    assert "1 of 3 done" in printed and "Sorted by validation" in printed
    (folder,) = (tmp_path / "outputs/toys/sweeps").iterdir()
    assert runs(tmp_path) == [f"{folder.name}-001"]
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["status"], row["validation_auc"]) for row in rows] == [
        ("1", "done", "0.9"),
        ("2", "failed", ""),
        ("3", "failed", ""),
    ]
    assert rows[0]["test_auc"] == "0.5" and rows[0]["run"].endswith(f"{folder.name}-001")
    assert all((tmp_path / row["notebook"]).is_file() for row in rows)
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")

    model = toys["model"]
    model.write_text(model.read_text().replace('FAIL == \\"', 'FAIL == \\"not '))  # the cause is mended
    code, printed = finish(start_sweep(toys, tmp_path, *command))
    assert (code, "3 of 3 done" in printed, printed.count(" before ")) == (0, True, 1), printed
    assert executions(tmp_path) == {f"{folder.name}-00{n}": 1 for n in (1, 2, 3)}


def test_interrupted_it_stops_at_once_and_the_same_command_goes_on(toys, tmp_path):
    command = ("-g", "IMAGE_SIZE", "100,200", "-p", "SECONDS", "2")
    sweep = start_sweep(toys, tmp_path, *command)
    wait_until(lambda: list(tmp_path.glob("outputs/toys/runs/.*")))
    second = start_sweep(toys, tmp_path, *command)
    code, printed = finish(second)
    assert (code, "is running already, started by the same command" in printed) == (1, True), printed
    sweep.send_signal(signal.SIGINT)
    code, printed = finish(sweep)
    assert (code, "interrupted after 0 of 2 trials; the same command goes on" in printed) == (130, True), printed
    assert trial_processes(tmp_path) == [] and runs(tmp_path) == []
    other = start_sweep(toys, tmp_path, "-g", "DROPOUT", "0.1,0.2", "--jobs", "2")  # another sweep of the same data
    code, printed = finish(start_sweep(toys, tmp_path, *command))
    assert (code, "2 of 2 done" in printed) == (0, True), printed
    assert finish(other)[0] == 0
    assert list(executions(tmp_path).values()) == [1, 1, 1, 1] and len(runs(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_every_trial_still_ends_exactly_once(toys, tmp_path, seed):
    moments = random.Random(seed)
    command = ("-g", "IMAGE_SIZE", "1,2,3,4,5,6", "-p", "SECONDS", "0.3", "--jobs", "2")
    for _ in range(5):
        sweep = start_sweep(toys, tmp_path, *command)
        time.sleep(moments.uniform(0.5, 5))
        sweep.kill()
        sweep.wait()
    code, printed = finish(start_sweep(toys, tmp_path, *command))
    assert code == 0 and "6 of 6 done" in printed, printed
    (folder,) = (tmp_path / "outputs/toys/sweeps").iterdir()
    assert runs(tmp_path) == [f"{folder.name}-00{n}" for n in range(1, 7)]
    assert set(executions(tmp_path).values()) == {1}
    assert trial_processes(tmp_path) == []


def test_nothing_outlives_a_killed_sweep(toys, tmp_path):
    sweep = start_sweep(toys, tmp_path, "-g", "SECONDS", "600,601", "--jobs", "2")
    wait_until(lambda: len(list(tmp_path.glob("outputs/toys/runs/.*"))) == 2)
    assert len(trial_processes(tmp_path)) == 4  # two workers, two kernels
    sweep.kill()
    wait_until(lambda: not trial_processes(tmp_path), 20)


def test_a_killed_worker_takes_its_kernel_along(toys, tmp_path):
    sweep = start_sweep(toys, tmp_path, "-g", "SECONDS", "600")
    wait_until(lambda: list(tmp_path.glob("outputs/toys/runs/.*")))
    (worker,) = [process for process in trial_processes(tmp_path) if "tdsp_vision.sweeps.worker" in process.cmdline()]
    worker.kill()
    code, printed = finish(sweep)
    assert (code, "failed, SECONDS=600: its process ended by SIGKILL" in printed) == (1, True), printed
    assert trial_processes(tmp_path) == []


def test_a_run_that_is_there_is_adopted(toys, tmp_path):
    """As after a kill between the run folder and what follows it: drafts and checkpoint go, nothing runs again."""
    (trial,) = plan_sweep([("EPOCHS", "3")], {}, notebooks=toys, history=False).grid()
    runs_folder = trial.outputs.runs
    for name in (f"20260131-142501-{trial.name}", f".20260131-142500-{trial.name}.abc"):
        (runs_folder / name).mkdir(parents=True)
        (runs_folder / name / "metrics.json").write_text("{}")
    checkpoint = tmp_path / "checkpoint.npz"
    checkpoint.write_text("weights")
    trial.file("epochs.jsonl").parent.mkdir(parents=True)
    trial.file("epochs.jsonl").write_text(f'{{"epoch": 1, "checkpoint": "{checkpoint}"}}\n{{"epoch": 2, "chec')
    result = run_trial(trial, {})
    assert (result["status"], result["run"]) == ("done", f"20260131-142501-{trial.name}")
    assert runs(tmp_path) == [trial.name] and not executions(tmp_path)
    assert not checkpoint.exists() and read_json(trial.file("result.json")) == result
    assert trial.file("log.txt").read_text() == ""  # nothing disturbed the worker


def test_a_notebook_that_leaves_no_run_has_failed(toys, tmp_path):
    model = toys["model"]
    model.write_text(model.read_text().replace("{RUN_NAME}", "other"))
    (trial,) = plan_sweep([("EPOCHS", "0")], {}, notebooks=toys, history=False).grid()
    result = run_trial(trial, {})
    assert (result["status"], result["error"]) == (
        "failed",
        f"the notebook ran to its end and left no run named {trial.name}",
    )
