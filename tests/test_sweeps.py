"""Sweeps over toys: every trial exactly once whatever is killed, under the right values, and goes on where it was."""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter

import nbformat
import pandas as pd
import psutil
import pytest
from toys import toy_command, toy_notebooks

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError
from tdsp_vision.sweeps.sweep import paired_differences, plan_sweep
from tdsp_vision.sweeps.trial import make_trial


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    for stage, notebook in toy_notebooks(tmp_path).items():
        monkeypatch.setitem(paths.NOTEBOOKS, stage, notebook)
    return tmp_path


def start(workspace, *arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(toy_command(workspace, "sweep", *arguments), env=dict(os.environ), **pipes)


def finish(process, code=0):
    """What it printed, once it has ended with `code`."""
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == code, printed
    return printed


def kill_when(true, sweep):
    wait_until(true)
    sweep.kill()
    sweep.communicate()


def executions(workspace):
    """How often each trial's run was made."""
    file = workspace / "outputs/lesions/executions.txt"
    return Counter(file.read_text().split()) if file.is_file() else Counter()


def results(workspace, number=1):
    tables = [pd.read_csv(file) for file in workspace.glob("outputs/lesions/sweeps/*/results.csv")]
    assert len(tables) == number
    return tables


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def drafts(workspace):
    return list(workspace.glob("outputs/lesions/runs/.*"))


def trial_processes(workspace):
    """Processes, kernels too, that belong to any trial in this workspace."""
    environments = {process: process.info["environ"] or {} for process in psutil.process_iter(["environ"])}
    return [one for one, own in environments.items() if own.get("TDSP_TRIAL", "").startswith(str(workspace))]


@pytest.mark.parametrize(
    ("choices", "fixed", "ranges", "trials", "message"),
    [
        ({}, {}, {}, None, "Give values with -g"),
        ({"EPOCS": "1"}, {}, {}, None, "EPOCS is no parameter .*the nearest of those is EPOCHS"),
        ({"EPOCHS": "1"}, {"EPOCHS": "2"}, {}, None, "EPOCHS is given more than once"),
        ({"DATA_DIR": "a,b"}, {}, {}, None, "DATA_DIR cannot vary"),
        ({"BACKBONE": "alexnet,resnet19"}, {}, {}, None, "BACKBONE is 'resnet19'"),
        ({"EPOCHS": "1,2"}, {}, {"DROPOUT": "0.1..0.5"}, None, "ranges with -r and --trials"),
        ({}, {}, {"DROPOUT": "0.5..0.1"}, 3, "a range of numbers, the lower one first"),
        ({}, {}, {"DROPOUT": "0.1..3"}, 3, "DROPOUT is '3'; .* less than or equal to 0.99"),
        ({}, {}, {"WEIGHT_DECAY": "0..0.5:log"}, 3, "0.01:log above 0"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_starts(workspace, choices, fixed, ranges, trials, message):
    with pytest.raises(ParameterError, match=message):
        plan_sweep(choices, fixed, ranges, "auc", trials)
    assert not (workspace / "outputs").exists()


def test_a_trial_is_named_by_all_that_shapes_its_run_and_by_nothing_else(workspace):
    def name(values, **options):
        sweep = plan_sweep({"EPOCHS": "1,2"}, options.pop("fixed", {}), {}, **options)
        return make_trial(values, sweep.others).name

    first = name({"EPOCHS": 1})
    assert first == name({"EPOCHS": 1}, metric="accuracy") == name({"EPOCHS": 1}, trials=3)
    others = {name({"EPOCHS": 2}), name({"EPOCHS": 1}, fixed={"SEED": "1"})}
    manifest = paths.DatasetPaths("data", "lesions").manifest
    manifest.parent.mkdir(parents=True)
    manifest.write_text("path,label\n")
    others.add(name({"EPOCHS": 1}))
    manifest.unlink()
    notebook = nbformat.read(paths.NOTEBOOKS["model"], as_version=4)
    notebook.cells[2].source += "\n# mended"
    nbformat.write(notebook, paths.NOTEBOOKS["model"])
    others.add(name({"EPOCHS": 1}))
    assert len(others | {first}) == 5


def test_a_failure_stops_no_other_trial_and_is_tried_again(workspace):
    command = ("-g", "BATCH_SIZE", "12,13,14", "-p", "DROPOUT", "0.1", "--jobs", "2")
    printed = finish(start(workspace, *command), 1)
    assert "failed: BATCH_SIZE=13: cell In [4]: KeyError: 'missing image' (outputs/lesions/sweeps/" in printed
    assert "failed: BATCH_SIZE=14: a cell: Kernel died" in printed and "1 of 3 done" in printed
    (table,) = results(workspace)
    assert table.set_index("BATCH_SIZE").status.to_dict() == {12: "done", 13: "failed", 14: "failed"}
    assert table.validation[0] == 0.9 and (workspace / table.notebook[1]).is_file()
    finish(start(workspace, *command), 1)
    assert sum(executions(workspace).values()) == 1


def test_repeated_splits_give_mean_range_and_a_paired_comparison(workspace):
    command = ("-g", "SVM_C", "[1e-4],[1e-3, 0.01]", "-g", "SEED", "0,1", "--metric", "accuracy", "--jobs", "2")
    assert "4 of 4 done" in finish(start(workspace, *command))
    (table,) = results(workspace)
    assert set(table.SVM_C) == {"[0.0001]", "[0.001, 0.01]"}, "commas within brackets belong to a value"
    over_seeds = table[["mean", "lowest", "highest"]]
    assert over_seeds.round(3).drop_duplicates().to_numpy().tolist() == [[0.505, 0.5, 0.51]]
    sweep = plan_sweep({"CLASSIFIER": "svm,dnn", "SEED": "0,1,2"}, {}, {}, "auc")
    scores = {"CLASSIFIER": ["svm"] * 3 + ["dnn"] * 3, "SEED": [0, 1, 2] * 2, "test": [0.7, 0.8, 0.9, 0.8, 0.9, 0.85]}
    (sentence,) = paired_differences(sweep, pd.DataFrame(scores).assign(status="done").iloc[::-1])
    words = "+0.050 of test AUC in the mean of 3 seeds (-0.050 to +0.100), above 0 in 2 of them."
    assert sentence == f"CLASSIFIER=dnn minus CLASSIFIER=svm: {words}"


@pytest.mark.parametrize("moment", ["first trial", "between trials"])
def test_after_a_kill_every_trial_ends_exactly_once(workspace, moment):
    command = ("-g", "IMAGE_SIZE", "100,200,300", "-p", "WEIGHT_DECAY", "0.05", "--jobs", "2")
    command += ("--metric", "balanced_accuracy")
    reached = drafts if moment == "first trial" else executions
    kill_when(lambda: reached(workspace), start(workspace, *command))
    wait_until(lambda: not trial_processes(workspace))  # nothing outlives it
    assert "3 of 3 done" in finish(start(workspace, *command))
    (table,) = results(workspace)
    assert (table.validation * 10000).round().to_list() == table.IMAGE_SIZE.to_list()
    assert list(executions(workspace).values()) == [1, 1, 1] and not drafts(workspace)


def test_two_sweeps_at_once_share_their_trials(workspace):
    command = ("-g", "IMAGE_SIZE", "100,200", "-p", "WEIGHT_DECAY", "0.1")
    one = start(workspace, *command)
    wait_until(lambda: drafts(workspace))
    same, other = start(workspace, *command), start(workspace, *command, "--metric", "accuracy")
    assert "lock' could not be acquired" in finish(same, 1)
    finish(one)
    finish(other)
    assert list(executions(workspace).values()) == [1, 1] and len(results(workspace, 2)) == 2


def test_an_interrupt_stops_at_once_and_says_how_to_go_on(workspace):
    sweep = start(workspace, "-g", "BATCH_SIZE", "15")
    wait_until(lambda: drafts(workspace))
    sweep.send_signal(signal.SIGINT)
    assert "interrupted; the same command goes on from there" in finish(sweep, 130)
    wait_until(lambda: not trial_processes(workspace))


def test_a_search_goes_on_and_two_metrics_do_not_mix(workspace):
    command = ("--trials", "2", "-r", "DROPOUT", "0.1..0.5", "-g", "SVM_C", "[0.1],[0.1, 0.2]")
    command += ("-p", "WEIGHT_DECAY", "0.03")
    kill_when(lambda: drafts(workspace), start(workspace, *command))
    finish(start(workspace, *command))
    finish(start(workspace, *command, "--metric", "accuracy"))
    for table in results(workspace, 2):
        done = table[table.status == "done"]
        values = 1 - done.DROPOUT if done.validation[0] != 0.5 else 0 * done.DROPOUT + 0.5  # AUC, or accuracy
        assert len(done) == 2 and values.round(6).tolist() == done.validation.round(6).tolist()
    assert set(executions(workspace).values()) == {1}


@pytest.mark.ray
def test_a_node_of_a_cluster_is_killed_and_every_trial_ends_exactly_once(workspace, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    small, clusters = {"num_cpus": 1, "object_store_memory": 80 * 1024**2}, []

    def started() -> bool:
        """Ray gives each node half a minute to start, which is too little on a busy machine."""
        with contextlib.suppress(Exception):
            clusters.append(Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False}))
            return clusters[-1].add_node(**small)

    try:
        wait_until(started, 400)
        cluster = clusters[-1]
        command = ("-g", "IMAGE_SIZE", "100,200,300,400", "-p", "WEIGHT_DECAY", "0.1", "--ray", cluster.address)
        sweep = start(workspace, *command)
        (node,) = [node for node in cluster.list_all_nodes() if not node.is_head()]
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)

        def runs_a_trial() -> bool:
            assert sweep.poll() is None, sweep.communicate()[0]
            return any("ipykernel_launcher" in " ".join(p.cmdline()) for p in raylet.children(recursive=True))

        wait_until(runs_a_trial)
        raylet.kill()
        assert "4 of 4 done" in finish(sweep)
    finally:
        for cluster in clusters:
            cluster.shutdown()
    assert list(executions(workspace).values()) == [1, 1, 1, 1]


@pytest.mark.ray
def test_a_cluster_that_does_not_answer_is_said_in_a_sentence(workspace):
    printed = finish(start(workspace, "-g", "IMAGE_SIZE", "100", "--ray", "auto"), 1)
    assert "No Ray cluster answers at 'auto'; start one with `ray start`." in printed
