"""How far a walkthrough is, stage by stage and cell by cell: a line for people, or lines of JSON for a program."""

import json
import threading
import time
from pathlib import Path
from typing import TextIO


class Progress:
    """`2/4 modeling (svm) ........ 21 s`, written in one go or, on a terminal, with running seconds and cells.

    Use as a context manager around the stage; `cell(number, total)` says which code cell is running.
    `interval` is the time between two updates on a terminal, in seconds.
    """

    def __init__(self, number: int, total: int, title: str, out: TextIO, interval: float = 1.0):
        self._label = f"{number}/{total} {title} ".ljust(30, ".") + " "
        self._out, self._interval, self._cell, self._ended = out, interval, "", threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True) if out.isatty() else None

    def __enter__(self) -> "Progress":
        self._start = time.monotonic()
        self._write(self._label)
        if self._clock:
            self._clock.start()
        return self

    def cell(self, number: int, total: int) -> None:
        self._cell = f", cell {number}/{total}"

    def __exit__(self, kind, error, trace) -> None:
        took = self._seconds()
        self._ended.set()
        if self._clock:
            self._clock.join()
            self._write(f"\r\x1b[K{self._label}")
        end = "" if kind is None else "interrupted after " if kind is KeyboardInterrupt else "failed after "
        self._write(f"{end}{took}\n")

    def _tick(self) -> None:
        while not self._ended.wait(self._interval):
            self._write(f"\r\x1b[K{self._label}{self._seconds()}{self._cell}")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._start:.0f} s"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class ProgressLines:
    """The same for a program that reads along: a line of JSON at the start, every `interval` seconds and at the end.

    `{"step": 2, "steps": 4, "title": "modeling (svm)", "notebook": "/…/model-svm.ipynb", "cell": 12, "cells": 58,
    "seconds": 21}`: `notebook` is the executed one, in which cell 12 of 58 is running; 0 of 0 before the first.
    """

    def __init__(self, number: int, total: int, title: str, executed: Path, out: TextIO, interval: float = 1.0):
        self._says = {"step": number, "steps": total, "title": title, "notebook": str(executed), "cell": 0, "cells": 0}
        self._out, self._interval, self._ended = out, interval, threading.Event()
        self._start, self._clock = time.monotonic(), threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "ProgressLines":
        self._say()
        self._clock.start()
        return self

    def cell(self, number: int, total: int) -> None:
        self._says = self._says | {"cell": number, "cells": total}

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._clock.join()
        self._say()

    def _tick(self) -> None:
        while not self._ended.wait(self._interval):
            self._say()

    def _say(self) -> None:
        seconds = round(time.monotonic() - self._start)
        print(json.dumps(self._says | {"seconds": seconds}), file=self._out, flush=True)
