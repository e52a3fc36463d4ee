"""How fast something answers that several clients call at once, each waiting for its answer before it asks again."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tdsp_vision.deployment.replicas import ServingError

WARM_UP = 3  # calls of each client that are not counted


def measure(call: Callable[[bytes], object], bodies: Sequence[bytes], seconds: float, clients: int) -> dict:
    """Call for some seconds from some threads, with the bodies in turn.

    Returns:
        `clients`; `requests`, those that were answered; `errors`, those that were not (`ServingError`); `p50_ms` and
        `p95_ms`, how long an answer took (NaN without one); `requests_per_s`.

    Raises:
        ValueError: without a body, a client or time.
    """
    if not bodies or clients < 1 or seconds <= 0:
        raise ValueError(f"{len(bodies)} bodies, {clients} clients, {seconds} seconds; all must be above 0.")
    for _, body in zip(range(WARM_UP * clients), itertools.cycle(bodies), strict=False):
        call(body)
    start = time.perf_counter()

    def client(number: int) -> tuple[list[float], int]:
        """Milliseconds of each answer, and how many failed."""
        times, errors = [], 0
        for turn in itertools.count(number):
            begin = time.perf_counter()
            if begin - start > seconds and turn > number:  # at least one call
                return times, errors
            try:
                call(bodies[turn % len(bodies)])
                times.append((time.perf_counter() - begin) * 1000)
            except ServingError:
                errors += 1

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(client, range(clients)))
    elapsed = time.perf_counter() - start
    times = np.concatenate([times for times, _ in results])
    p50, p95 = np.percentile(times, [50, 95]) if len(times) else (np.nan, np.nan)
    rates = {"p50_ms": float(p50), "p95_ms": float(p95), "requests_per_s": len(times) / elapsed}
    return {"clients": clients, "requests": len(times), "errors": sum(bad for _, bad in results), **rates}
