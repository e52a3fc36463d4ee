"""A client of a served model: image files to a table of scores, over TensorFlow Serving's REST protocol.

It works with any server that speaks the protocol. Out: one row per file with `source, label, score_<class>…, valid,
error, ms`; a file that cannot be sent, or that the server cannot decode, keeps its row and says why.
"""

import base64
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import pandas as pd
import requests

MAX_FILE_BYTES = 20 * 1024 * 1024
MAX_BATCH_BYTES = 32 * 1024 * 1024  # base64 adds a third; the embedded server takes 64 MiB
TIMEOUT_SECONDS = 60


class ServingError(RuntimeError):
    """The server could not be reached or answered a request with an error."""


class ServingClient:
    """Talks to one model.

    Args:
        url: the server, without a path: `http://127.0.0.1:8501`.
        model_name: name of the model on it.
        classes: names of the K classes in the order of the model's outputs (a prediction does not carry them);
            `export.read_model_info(version_folder)["classes"]` has them.
    """

    def __init__(self, url: str, model_name: str, classes: list[str]):
        self.url = url.rstrip("/")
        self.model_name = model_name
        self.classes = list(classes)
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy is no way to a server on this machine

    def status(self) -> dict:
        """State of each version: `{"model_version_status": [{"version", "state", "status"}]}`."""
        return self._call("GET", "")

    def metadata(self) -> dict:
        """Served version and signatures: `{"model_spec": {…}, "metadata": {"signature_def": {…}}}`."""
        return self._call("GET", "/metadata")

    def score_path(self, path: Path) -> dict:
        """The row of `score_paths` for one file, as a dict."""
        return self.score_paths([path]).iloc[0].to_dict()

    def score_paths(self, paths: Iterable[Path], batch_size: int = 16) -> pd.DataFrame:
        """Score image files.

        Args:
            paths: image files of at most 20 MB each.
            batch_size: largest number of images in one request.

        Returns:
            One row per path, in order: `source` (the path), `label` ("" if there is none), `score_<class>` (float,
            NaN where there is none), `valid` (bool), `error` ("" if all went well), `ms` (duration of the request
            that carried the image, in milliseconds; NaN if it was not sent).

        Raises:
            ServingError: if the server cannot be reached or refuses a request.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
        rows = [self._row(path) for path in paths]
        for batch in _batches(rows, batch_size):
            self._score(batch)
        columns = ["source", "label", *self._score_columns(), "valid", "error", "ms"]
        return pd.DataFrame([{name: row[name] for name in columns} for row in rows], columns=columns)

    def _score_columns(self) -> list[str]:
        return [f"score_{name}" for name in self.classes]

    def _row(self, path: Path) -> dict:
        """An empty row that says what is wrong with a file, if anything is."""
        scores = dict.fromkeys(self._score_columns(), float("nan"))
        row = {"source": str(path), "label": "", **scores, "valid": False, "error": "", "ms": float("nan")}
        path = Path(path)
        if not path.is_file():
            row["error"] = "no such file"
        elif (size := path.stat().st_size) > MAX_FILE_BYTES:
            row["error"] = f"{size} bytes; at most {MAX_FILE_BYTES} are sent"
        return row

    def _score(self, rows: list[dict]) -> None:
        """Send the files of `rows` in one request and fill in the answers."""
        encoded = [base64.b64encode(Path(row["source"]).read_bytes()).decode() for row in rows]
        body = {"instances": [{"image_bytes": {"b64": text}} for text in encoded]}
        start = time.perf_counter()
        predictions = self._call("POST", ":predict", orjson.dumps(body))["predictions"]
        milliseconds = (time.perf_counter() - start) * 1000
        for row, prediction in zip(rows, predictions, strict=True):
            row["ms"] = milliseconds
            if not prediction["valid"]:
                row["error"] = "the server could not decode it as an image"
                continue
            row.update(zip(self._score_columns(), prediction["scores"], strict=True))
            row.update(label=prediction["label"], valid=True)

    def _call(self, method: str, call: str, body: bytes | None = None) -> dict:
        """The JSON answer of one call; ServingError for any that is not a success."""
        url = f"{self.url}/v1/models/{self.model_name}{call}"
        headers = {"Content-Type": "application/json"}
        try:
            response = self._http.request(method, url, data=body, headers=headers, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise ServingError(f"{method} {url} got no answer: {error}") from error
        if not response.ok:
            raise ServingError(f"{method} {url} was answered with {response.status_code}: {response.text.strip()}")
        return response.json()


def _batches(rows: list[dict], batch_size: int) -> Iterator[list[dict]]:
    """Rows without an error in groups of at most `batch_size` files and `MAX_BATCH_BYTES` bytes."""
    batch, size = [], 0
    for row in rows:
        if row["error"]:
            continue
        length = Path(row["source"]).stat().st_size
        if batch and (len(batch) == batch_size or size + length > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += length
    if batch:
        yield batch
