"""Searches: values from ranges, as many trials as asked for, pruned on their curves, resumed after a kill."""

import time

import optuna
import pytest
from sweeping import executions, finish, read_json, runs, start_sweep, toy_notebooks

from tdsp_vision.sweeps.plan import plan_sweep
from tdsp_vision.sweeps.search import Search


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    return toy_notebooks(tmp_path)


def numbers(counts):
    return sorted(int(name.rsplit("-", 1)[1]) for name in counts)


RANGES = ("-r", "DROPOUT", "0.1..0.5", "-g", "SVM_C", "[0.1],[0.1, 0.2]")


def test_a_search_goes_on_to_the_number_of_trials_asked_for(toys, tmp_path):
    code, printed = finish(start_sweep(toys, tmp_path, "--search", "optuna", "--trials", "2", *RANGES))
    assert (code, "2 of 2 done" in printed) == (0, True), printed
    code, printed = finish(start_sweep(toys, tmp_path, "--search", "optuna", "--trials", "3", *RANGES))
    assert (code, "3 of 3 done" in printed) == (0, True), printed
    assert set(executions(tmp_path).values()) == {1} and numbers(executions(tmp_path)) == [1, 2, 3]
    for file in tmp_path.glob("outputs/toys/sweeps/*/trials/*/trial.json"):
        values = read_json(file)["values"]
        assert 0.1 <= values["DROPOUT"] <= 0.5 and values["SVM_C"] in ([0.1], [0.1, 0.2])


def test_a_search_that_was_killed_runs_what_was_running_with_the_same_values(toys, tmp_path):
    command = ("--search", "optuna", "--trials", "3", "--jobs", "2", "-p", "SECONDS", "1", *RANGES)
    search = start_sweep(toys, tmp_path, *command)
    while not list(tmp_path.glob("outputs/toys/runs/.*")):
        assert search.poll() is None
        time.sleep(0.05)
    search.kill()
    search.wait()
    before = {file: read_json(file)["values"] for file in tmp_path.glob("outputs/toys/sweeps/*/trials/*/trial.json")}
    code, printed = finish(start_sweep(toys, tmp_path, *command))
    assert (code, "3 of 3 done" in printed) == (0, True), printed
    assert before and all(read_json(file)["values"] == values for file, values in before.items())
    assert set(executions(tmp_path).values()) == {1} and numbers(executions(tmp_path)) == [1, 2, 3]
    assert len(runs(tmp_path)) == 3


def test_a_hopeless_curve_is_pruned_and_leaves_no_run(toys, tmp_path):
    sweep = plan_sweep([], {"EPOCHS": "100"}, [("DROPOUT", "0.1..0.5")], toys, history=False)
    study = Search(sweep, 1, "auc").study
    for _ in range(5):  # five earlier trials that were perfect from the start, so the sixth cannot keep up
        study.add_trial(
            optuna.trial.create_trial(
                value=1.0,
                params={"DROPOUT": 0.1},
                distributions={"DROPOUT": optuna.distributions.FloatDistribution(0.1, 0.5)},
                intermediate_values=dict.fromkeys(range(1, 101), 1.0),
            )
        )
    command = ("--search", "optuna", "--trials", "6", "-p", "EPOCHS", "100", "-r", "DROPOUT", "0.1..0.5")
    code, printed = finish(start_sweep(toys, tmp_path, *command))
    assert (code, "6/6 DROPOUT=" in printed, "trial 6 pruned, DROPOUT=" in printed) == (0, True, True), printed
    assert not executions(tmp_path) and not (tmp_path / "outputs/toys/runs").exists()
    assert list((tmp_path / "outputs/toys/training").iterdir()) == []
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 5 + ["PRUNED"]
    code, printed = finish(start_sweep(toys, tmp_path, *command))  # all six have ended, so nothing is left to do
    assert (code, "trial 6 pruned" in printed) == (0, True) and not executions(tmp_path), printed
