"""The servers of one deployment as a group: started all or none, taken out of use before they are stopped."""

import time
from collections.abc import Sequence

from tdsp_vision.deployment.backends import Backend, Release, Service

DRAIN_SECONDS = 2  # a client that has just read an address uses it within this time
MAX_REPLICAS = 32


def check_replicas(replicas: int) -> None:
    """ValueError for a number of replicas that is not allowed."""
    if type(replicas) is not int or not 1 <= replicas <= MAX_REPLICAS:
        raise ValueError(f"REPLICAS is {replicas!r}; allowed are whole numbers from 1 to {MAX_REPLICAS}.")


def start_all(backend: Backend, release: Release, count: int, port: int, keep_running: bool) -> list[Service]:
    """`count` new servers that answer, the first of them at `port` (0: any); all or, with a RuntimeError, none."""
    services = []
    try:
        for index in range(count):
            services.append(backend.run(release, 0 if index else port, keep_running))
    except BaseException:
        for service in services:
            service.stop()
        raise
    return services


def retire(services: Sequence[Service]) -> None:
    """Stop servers whose addresses are no longer given out, once those who have them are done."""
    if any(service.alive() for service in services):
        time.sleep(DRAIN_SECONDS)
    for service in services:
        service.stop()
