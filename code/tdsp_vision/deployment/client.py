"""A client of a served model: images to a table of scores, over TensorFlow Serving's REST protocol.

It works with any server that speaks the protocol, and with several of the same model. Out: one row per image with
`source, label, score_<class>…, valid, error, ms`; an image that cannot be sent, or that the server cannot decode,
keeps its row and says why.
"""

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import orjson
import pandas as pd

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.deployment.image_header import MAX_PIXELS
from tdsp_vision.deployment.outgoing import checked_image, read_file, read_url
from tdsp_vision.deployment.replicas import Replicas, ServingError
from tdsp_vision.deployment.timing import measure

__all__ = ["ServingClient", "ServingError"]
MAX_BATCH_BYTES = 32 * 1024 * 1024  # base64 adds a third; the embedded server takes 64 MiB


class ServingClient:
    """Talks to one model; may be used from several threads at once.

    Args:
        url: the server, without a path (`http://127.0.0.1:8501`), or several, or a function that names those of the
            moment: each request goes to the next one, and to another one where that does not answer.
        model_name: name of the model there.
        classes: names of the K classes in the order of the model's outputs (a prediction does not carry them);
            `export.read_model_info(version_folder)["classes"]` has them.
        key: bearer key, if the service asks for one.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Callable[[], Sequence[str]],
        model_name: str,
        classes: list[str],
        key: str | None = None,
    ):
        self.replicas = Replicas([url] if isinstance(url, str) else url, key)
        self.model_name = model_name
        self.classes = list(classes)

    def status(self) -> dict:
        """State of each version: `{"model_version_status": [{"version", "state", "status"}]}`."""
        return self._call("GET", "")

    def metadata(self) -> dict:
        """Served version and signatures: `{"model_spec": {…}, "metadata": {"signature_def": {…}}}`."""
        return self._call("GET", "/metadata")

    def score_path(self, path: Path) -> dict:
        """The row of `score_batch` for one file, as a dict."""
        return self.score_paths([path]).iloc[0].to_dict()

    def score_url(self, url: str, private: bool = False) -> dict:
        """The row of `score_batch` for an image on the web, as a dict.

        Args:
            url: of http or https; anything else, and an address that is not public, is refused in the row.
            private: allow addresses that are not public; see `outgoing.read_url`.
        """
        return self._table([url], lambda source: read_url(source, private), 1).iloc[0].to_dict()

    def score_paths(self, paths: Iterable[Path], batch_size: int = 16) -> pd.DataFrame:
        """Score image files; as `score_batch`."""
        return self._table(paths, lambda source: read_file(Path(source)), batch_size)

    def score_batch(self, sources: Iterable[Path | str], batch_size: int = 16) -> pd.DataFrame:
        """Score images from files and from the web.

        Args:
            sources: image files of at most 20 MB each; what starts with `http://` or `https://` is fetched.
            batch_size: largest number of images in one request.

        Returns:
            One row per source, in order: `source`, `label` ("" if there is none), `score_<class>` (float, NaN where
            there is none), `valid` (bool), `error` ("" if all went well), `ms` (duration of the request that carried
            the image, in milliseconds; NaN if it was not sent).

        Raises:
            ServingError: if no server can be reached, or one refuses a request.
        """

        def read(source: Path | str) -> bytes:
            """From the web or from a file."""
            is_url = str(source).startswith(("http://", "https://"))
            return read_url(str(source)) if is_url else read_file(Path(source))

        return self._table(sources, read, batch_size)

    def benchmark(self, files: Iterable[Path], seconds: float = 5, clients: Sequence[int] = (1, 8)) -> pd.DataFrame:
        """How fast the service answers: one image per request, all files in turn, each client waiting for its answer.

        Returns:
            One row per number of clients: `clients, requests, errors, p50_ms, p95_ms, requests_per_s`.

        Raises:
            RejectedImage: for a file that cannot be sent.
        """
        bodies = [_body([checked_image(read_file(Path(file)))[0]]) for file in files]
        rows = [measure(partial(self._call, "POST", ":predict"), bodies, seconds, count) for count in clients]
        return pd.DataFrame(rows)

    def _table(self, sources: Iterable, read: Callable, batch_size: int) -> pd.DataFrame:
        """Score sources as they are read; images go out as soon as a request is full, so that few are in memory."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
        rows = []
        for batch in _batches(self._images(sources, read, rows), batch_size):
            self._score(*zip(*batch, strict=True))
        columns = ["source", "label", *self._score_columns(), "valid", "error", "ms"]
        return pd.DataFrame(rows, columns=columns)

    def _score_columns(self) -> list[str]:
        return [f"score_{name}" for name in self.classes]

    def _images(self, sources: Iterable, read: Callable, rows: list[dict]) -> Iterator[tuple[dict, bytes, int]]:
        """Append a row per source; yield it with content and pixels of the image if that can be sent."""
        scores = dict.fromkeys(self._score_columns(), float("nan"))
        for source in sources:
            row = {"source": str(source), "label": "", **scores, "valid": False, "error": "", "ms": float("nan")}
            rows.append(row)
            try:
                content, pixels = checked_image(read(source))
            except (RejectedImage, OSError) as reason:
                row["error"] = str(reason)
                continue
            yield row, content, pixels

    def _score(self, rows: Sequence[dict], contents: Sequence[bytes]) -> None:
        """Send images in one request and fill in the rows."""
        body = _body(contents)
        start = time.perf_counter()
        predictions = self._call("POST", ":predict", body)["predictions"]
        milliseconds = (time.perf_counter() - start) * 1000
        for row, prediction in zip(rows, predictions, strict=True):
            row["ms"] = milliseconds
            if not prediction["valid"]:
                row["error"] = "the server could not decode it as an image"
                continue
            row.update(zip(self._score_columns(), prediction["scores"], strict=True))
            row.update(label=prediction["label"], valid=True)

    def _call(self, method: str, call: str, body: bytes | None = None) -> dict:
        return self.replicas.call(method, f"/v1/models/{self.model_name}{call}", body)


def _body(contents: Iterable[bytes]) -> bytes:
    """A request to predict."""
    return orjson.dumps({"instances": [{"image_bytes": {"b64": base64.b64encode(c).decode()}} for c in contents]})


def _batches(images: Iterable[tuple[dict, bytes, int]], batch_size: int) -> Iterator[list[tuple[dict, bytes]]]:
    """Groups of at most `batch_size` images, `MAX_BATCH_BYTES` bytes and `MAX_PIXELS` pixels."""
    batch, size, pixels = [], 0, 0
    for row, content, count in images:
        size, pixels = size + len(content), pixels + count
        if batch and (len(batch) == batch_size or size > MAX_BATCH_BYTES or pixels > MAX_PIXELS):
            yield batch
            batch, size, pixels = [], len(content), count
        batch.append((row, content))
    if batch:
        yield batch
