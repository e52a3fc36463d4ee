"""Trials on a Ray cluster: each is a task, repeated on another node where its node is lost.

Every node has the package installed and sees the repository, data and outputs under the same paths (a shared
folder). What keeps a trial from running twice is said in `trial`. Source: docs.ray.io, "Fault tolerance", "Tasks".
"""

import os
from collections.abc import Callable

from tdsp_vision.errors import RunFailed
from tdsp_vision.sweeps.trial import run_trial


def connect(address: str, gpus: float) -> tuple[Callable[..., dict], int]:
    """`run_trial` on the cluster at `address` ("auto": the one that this machine belongs to), and how many at once.

    Args:
        gpus: that each trial takes beside one CPU, as Ray counts them; a trial sees no GPU unless it takes one.

    Raises:
        RunFailed: Ray is not installed, or no cluster answers, or it has too little.
    """
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
    all_cpus, all_gpus = (ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU"))
    room = int(min(all_cpus, all_gpus / gpus if gpus else all_cpus))
    if not room:
        ray.shutdown()
        raise RunFailed(f"A trial takes 1 CPU and {gpus:g} GPUs, more than the Ray cluster has.")
    # A lost node ends as many trials as it runs, so a retry says nothing about the trial itself.
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=5)(run_trial)

    def run(trial, environment) -> dict:
        try:
            return ray.get(task.remote(trial, environment))
        except ray.exceptions.RayError as error:  # a failure of this trial's machines only
            return {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}

    return run, room
