"""Trials on a Ray cluster: each is a task, repeated on another node where its node is lost.

Every node has the package installed and sees the repository, data and outputs under the same paths (a shared
folder). What keeps a trial from running twice is said in `trial`; a file system that passes no locks between
machines leaves the run folder as the only judge. Source: docs.ray.io, "Fault tolerance", "Tasks".
"""

import os
from collections.abc import Mapping
from concurrent.futures import Future

from tdsp_vision.execution import RunFailed
from tdsp_vision.sweeps.trial import Trial, run_trial

RETRIES = 5  # of a trial, where the machine or the worker that ran it was lost


class RayCluster:
    """Runs trials on the cluster at `address` ("auto": the one that this machine belongs to).

    Args:
        jobs: how many at once; None: as many as the cluster has room for.
        cpus, gpus: that each trial takes, as Ray counts them; a trial sees no GPU unless it takes one.

    Raises:
        RunFailed: Ray is not installed, or no cluster answers, or it has too little.
    """

    def __init__(self, address: str, jobs: int | None, cpus: float = 1, gpus: float = 0):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError:
            raise RunFailed('--ray needs Ray, which is not installed: pip install "tdsp-vision[ray]".') from None
        try:
            ray.init(address, log_to_driver=False, logging_level="error", include_dashboard=None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            words = " ".join(str(error).split())[:300]
            raise RunFailed(f"No Ray cluster answers at {address!r}; start one with `ray start`. ({words})") from None
        there = ray.cluster_resources()
        room = int(min(there.get(kind, 0) / count for kind, count in (("CPU", cpus), ("GPU", gpus)) if count))
        if not room:
            ray.shutdown()
            raise RunFailed(f"A trial takes {cpus:g} CPUs and {gpus:g} GPUs, more than the Ray cluster has.")
        self.jobs = jobs or room
        # A lost node ends as many trials as it runs, so a retry says nothing about the trial itself.
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(run_trial)

    def submit(self, trial: Trial, environment: Mapping[str, str]) -> Future:
        """Start a trial; the result of the future is that of `run_trial`."""
        return self._task.remote(trial, environment).future()

    def close(self) -> None:
        """Leave the cluster; tasks that still run end with this."""
        import ray

        ray.shutdown()
