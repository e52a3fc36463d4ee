"""When to try again and when to stop: each attempt ends with a result, `TryAgain` (it may pass) or `FetchError`."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class FetchError(ValueError):
    """Something could not be fetched; the message is the reason, `status` the HTTP status (0: there was none)."""

    def __init__(self, reason: str, status: int = 0, body: str = ""):
        super().__init__(reason)
        self.status, self.body = status, body


class TryAgain(FetchError):
    """A trouble that may pass; `wait` is how many seconds the server asked for (None: it did not)."""

    def __init__(self, reason: str, status: int = 0, wait: float | None = None):
        super().__init__(reason, status)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """When to wait, and for how long: all times in seconds. `sleep` is there to be replaced in tests."""

    attempts: int = 5
    connect_timeout: float = 10
    read_timeout: float = 30  # without a single byte
    deadline: float = 300  # for one file with all its attempts
    backoff: float = 1  # before the second attempt; doubles with each further one
    longest_wait: float = 60  # whatever `Retry-After` says
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, asked: float | None) -> float:
        """Seconds until the next attempt: what the server asked for, else exponential with jitter, never too long."""
        jitter = random.uniform(0.5, 1)  # so that threads which failed together do not come back together
        return min(self.backoff * 2**attempt * jitter if asked is None else asked, self.longest_wait)

    def persist(self, attempt: Callable[[float], object]):
        """The result of `attempt(stop)`, called again after each `TryAgain`; `stop` is its end on the monotonic clock.

        Raises:
            FetchError: the last trouble, when attempts or time are used up.
        """
        stop = time.monotonic() + self.deadline
        for number in range(self.attempts):
            try:
                return attempt(stop)
            except TryAgain as trouble:
                wait = self.wait(number, trouble.wait)
                if number + 1 == self.attempts or time.monotonic() + wait > stop:
                    raise FetchError(f"{trouble} ({number + 1} attempts)", trouble.status) from trouble
            self.sleep(wait)


def retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, given in seconds or as a date (RFC 9110, 10.2.3); else None."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
