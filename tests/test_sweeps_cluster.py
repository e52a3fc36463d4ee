"""The same trials on a Ray cluster of two nodes on this machine, one of which is killed in the middle."""

import contextlib
import time

import psutil
import pytest
from sweeping import executions, runs, start_sweep, toy_notebooks


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=small)
    made.add_node(num_cpus=1, object_store_memory=80 * 1024**2)
    yield made
    made.shutdown()


def command_lines(process: psutil.Process) -> list[str]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            found.append(" ".join(child.cmdline()))
    return found


@pytest.mark.slow
def test_a_node_is_killed_and_every_trial_ends_exactly_once(tmp_path, cluster):
    toys = toy_notebooks(tmp_path)
    command = ("-g", "IMAGE_SIZE", "1,2,3,4,5", "-p", "SECONDS", "1", "--ray", cluster.address)
    sweep = start_sweep(toys, tmp_path, *command)
    (node,) = [node for node in cluster.list_all_nodes() if not node.is_head()]
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    end = time.monotonic() + 120
    while not executions(tmp_path) or not any("ipykernel_launcher" in p for p in command_lines(raylet)):
        assert sweep.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    raylet.kill()  # while a trial runs on its node
    printed, _ = sweep.communicate(timeout=240)
    assert (sweep.returncode, "5 of 5 done" in printed) == (0, True), printed
    (folder,) = (tmp_path / "outputs/toys/sweeps").iterdir()
    assert runs(tmp_path) == [f"{folder.name}-00{n}" for n in range(1, 6)]
    assert executions(tmp_path) == {f"{folder.name}-00{n}": 1 for n in range(1, 6)}
    printed, _ = start_sweep(toys, tmp_path, *command).communicate(timeout=120)
    assert printed.count(" before ") == 5, printed


def test_a_cluster_that_does_not_answer_is_said_in_a_sentence(tmp_path):
    sweep = start_sweep(toy_notebooks(tmp_path), tmp_path, "-g", "IMAGE_SIZE", "1", "--ray", "auto")
    printed, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "No Ray cluster answers at 'auto'; start one with `ray start`." in printed, printed
