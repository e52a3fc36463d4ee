"""A client of a served model: images to a table of scores, and proof that they are those of the run.

It works with any server that speaks TensorFlow Serving's REST protocol. Out: one row per image with `source, label,
score_<class>…, familiar (of a model that says it), valid, error, ms, version`; an image that cannot be sent, or that
the server cannot decode, keeps its row and says why. A request names the version that it wants, so it is known whose
classes the scores belong to; when that version has been replaced meanwhile (404), the request goes to its successor.

`check_parity` compares with a run's `predictions.csv` (`path,split,label,predicted,score_<class>…,familiar`).
"""

import base64
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import urllib3
from PIL import Image
from tqdm.auto import tqdm

from tdsp_vision.data.images import RejectedImage, as_stored
from tdsp_vision.data.web import Client
from tdsp_vision.errors import RunFailed

MAX_FILE_BYTES = 20 * 1024 * 1024  # base64 adds a third; the embedded server takes 32 MiB
NO_SCORE = {"label": "", "valid": False, "error": "", "ms": float("nan"), "version": 0}


class ServingError(RunFailed):
    """The service could not be reached or answered a request with an error; `status` is the HTTP status, or 0."""

    def __init__(self, message: str, status: int = 0):
        super().__init__(message)
        self.status = status


class ServingClient:
    """Talks to one model; may be used from several threads at once.

    Args:
        url: the server, without a path: `http://127.0.0.1:8501`.
        model_name: name of the model there.
        key: bearer key, if the service asks for one; by default that of the environment variable TDSP_SERVING_KEY.
    """

    def __init__(self, url: str, model_name: str, key: str | None = None):
        self.address = f"{url.rstrip('/')}/v1/models/{model_name}"
        key = os.environ.get("TDSP_SERVING_KEY") if key is None else key
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        again = urllib3.Retry(1, connect=0, status_forcelist=[429, 503], allowed_methods=None, raise_on_status=False)
        # urllib3 itself: it takes no proxy from the environment, which would be asked for the loopback address too.
        self._http = urllib3.PoolManager(maxsize=32, timeout=urllib3.Timeout(connect=5, read=60), retries=again)
        self._classes: dict[int, list[str]] = {}  # by version

    def call(self, method: str, path: str, content: dict | bytes | None = None) -> dict:
        """The JSON answer to a request below the model's address, as `call("POST", ":predict", {"instances": […]})`.

        Raises:
            ServingError: if the server cannot be reached, or answers with an error, which it names.
        """
        body = orjson.dumps(content) if isinstance(content, dict) else content
        try:
            answer = self._http.request(method, self.address + path, body=body, headers=self.headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise ServingError(f"{method} {self.address}{path} got no answer: {error}") from error
        if answer.status != 200:
            said = f"was answered with {answer.status}: {answer.data.decode(errors='replace').strip()[:1000]}"
            raise ServingError(f"{method} {self.address}{path} {said}", answer.status)
        return orjson.loads(answer.data)

    def status(self) -> dict[int, str]:
        """State of each version by its number, such as AVAILABLE, or `END: <why>` where it cannot be loaded."""
        known = self.call("GET", "")["model_version_status"]
        return {int(v["version"]): f"{v['state']}: {v['status']['error_message']}".removesuffix(": ") for v in known}

    def version(self) -> int:
        """Number of the version that answers a request which names none; 0 if none does."""
        return max((version for version, state in self.status().items() if state == "AVAILABLE"), default=0)

    def classes(self, version: int) -> list[str]:
        """Names of the classes in the order of a version's scores."""
        if version not in self._classes:
            request = {"signature_name": "classify", "instances": [{"b64": ""}]}  # an empty Example
            answer = self.call("POST", f"/versions/{version}:predict", request)
            self._classes = {version: answer["predictions"][0]["classes"]}
        return self._classes[version]

    def score(self, sources: Path | str | Iterable, batch_size: int = 16, private: bool = False) -> pd.DataFrame:
        """Score an image file, a web address, a folder with all images below it, or a list of any of these.

        Args:
            sources: files of which at most 20 MiB each are sent; what starts with `http://` or `https://` is fetched.
            batch_size: largest number of images in one request.
            private: also fetch from addresses that are not public. Where a stranger may choose the address, leave it
                off: this machine can reach servers that he cannot.

        Returns:
            One row per image, in order: `source`, `label` ("" if there is none), `score_<class>` (float, NaN where
            there is none), `familiar` (likewise, of a model that says it: `modeling.familiarity`), `valid` (bool),
            `error` ("" if all went well), `ms` (duration of the request that carried the image, in milliseconds; NaN
            if it was not sent), `version` (that answered; 0 for none).

        Raises:
            ServingError: if the server cannot be reached, or refuses a request.
        """
        rows, batch = [], []
        for source in _expanded(sources):
            rows.append({"source": str(source)} | NO_SCORE)
            try:
                content = _read(source, private)
            except (ValueError, OSError) as reason:
                rows[-1]["error"] = str(reason)
                continue
            if batch and (len(batch) >= batch_size or sum(len(c) for _, c in batch) + len(content) > MAX_FILE_BYTES):
                self._fill(batch)
                batch = []
            batch.append((rows[-1], content))
        if batch:
            self._fill(batch)
        names = {name: None for row in rows for name in row if name.startswith(("score_", "familiar"))}
        names = list(names) or [f"score_{name}" for name in self.classes(self.version())]
        return pd.DataFrame(rows, columns=["source", "label", *names, "valid", "error", "ms", "version"])

    def benchmark(self, files: Sequence[Path], seconds: float = 5, clients: Sequence[int] = (1, 8)) -> pd.DataFrame:
        """How fast the service answers: one image per request, all files in turn, each client waiting for its answer.

        Returns:
            One row per number of clients: `clients`; `requests`, those that were answered; `errors`, those that were
            not; `p50_ms` and `p95_ms`, how long an answer took; `requests_per_s`.
        """
        bodies = [request_body([_read(file, False)]) for file in files]
        self.call("POST", ":predict", bodies[0])  # opens the connection; not counted

        def ask(number: int, end: float) -> list[float]:
            """How long each answer took, in milliseconds; NaN where there was none."""
            times = []
            for body in itertools.islice(itertools.cycle(bodies), number, None):
                if (begin := time.perf_counter()) > end:
                    return times
                times.append(np.nan)
                with suppress(ServingError):
                    self.call("POST", ":predict", body)
                    times[-1] = (time.perf_counter() - begin) * 1000

        rows = []
        for count in clients:
            start = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                times = np.concatenate(list(pool.map(ask, range(count), [start + seconds] * count)))
            answered, taken = int(np.isfinite(times).sum()), time.perf_counter() - start
            rows.append((count, answered, len(times) - answered, *np.nanpercentile(times, [50, 95]), answered / taken))
        return pd.DataFrame(rows, columns=["clients", "requests", "errors", "p50_ms", "p95_ms", "requests_per_s"])

    def _fill(self, batch: list[tuple[dict, bytes]]) -> None:
        """Send images in one request and fill in their rows."""
        start = time.perf_counter()
        version, classes, predictions = self._predict(request_body(content for _, content in batch))
        answered = {"ms": (time.perf_counter() - start) * 1000, "version": version}
        for (row, _), prediction in zip(batch, predictions, strict=True):
            row |= answered
            if prediction["valid"]:
                row |= {f"score_{name}": score for name, score in zip(classes, prediction["scores"], strict=True)}
                row |= {name: prediction[name] for name in ("label", "valid", "familiar") if name in prediction}
            else:
                row["error"] = "the server could not decode it as an image"

    def _predict(self, body: bytes) -> tuple[int, list[str], list[dict]]:
        """The answering version, its classes and its predictions; asks for the version anew where the last one went."""
        version = max(self._classes, default=0) or self.version()
        try:
            classes = self.classes(version)
            return version, classes, self.call("POST", f"/versions/{version}:predict", body)["predictions"]
        except ServingError as error:
            if error.status != 404 or version == self.version():
                raise
            self._classes = {}
            return self._predict(body)


def _expanded(sources: Path | str | Iterable) -> Iterator[Path | str]:
    """Each file and address; a folder becomes the images below it, in order."""
    for source in [sources] if isinstance(sources, str | Path) else sources:
        if isinstance(source, str) and "://" in source:
            yield source
        elif Path(source).is_dir():
            endings = Image.registered_extensions()
            yield from sorted(file for file in Path(source).rglob("*") if file.suffix.lower() in endings)
        else:
            yield Path(source)


def _read(source: Path | str, private: bool) -> bytes:
    """The bytes to send for a file or an address: what stage 1 would keep of it, so that the pixels are the same.

    A photo is turned as its camera asks, a TIFF becomes a PNG; most files are sent byte for byte. What stage 1 would
    reject is sent as it is: whether it is an image is for the server to say.

    Raises:
        ValueError, OSError: if it cannot be had, is empty, or is longer than what is sent.
    """
    if isinstance(source, str):  # every redirect is held to the same rules
        client = Client(attempts=2, timeout=15, deadline=30, guarded=not private)
        content = client.get(source, max_bytes=MAX_FILE_BYTES)
    else:
        content = source.read_bytes()
    with suppress(RejectedImage):
        content = as_stored(content).content
    if not 0 < len(content) <= MAX_FILE_BYTES:
        raise ValueError(f"{len(content)} bytes; 1 to {MAX_FILE_BYTES} are sent")
    return content


def request_body(contents: Iterable[bytes]) -> bytes:
    """A request to predict."""
    return orjson.dumps({"instances": [{"image_bytes": {"b64": base64.b64encode(c).decode()}} for c in contents]})


def check_parity(client: ServingClient, predictions: pd.DataFrame, rule: dict, tolerance: float = 1e-5) -> dict:
    """Prove that what is served is what was evaluated: the same files, the same scores, the same labels.

    Args:
        client: the service.
        predictions: rows of `runs.read_predictions`, at least one, with a column `score_<class>` per class, and
            familiar.
        rule: `classes, positive_class, threshold`, as `model_info.json` has them: the labels of the run and of the
            service must both follow from it.
        tolerance: largest allowed difference of a score; familiar, several layers more, may differ by ten times that.

    Returns:
        `n`, `max_abs_diff` (of scores), `familiar_max_abs_diff`, `tolerance`, and `borderline`: number of labels that
        differ, because scores that are equal within the tolerance lie on two sides of a threshold.

    Raises:
        RunFailed: if a file has no score, or a score, familiar or label differs by more than that.
    """
    from tdsp_vision.modeling.metrics import decide  # here, since what it imports takes a second

    columns = [f"score_{name}" for name in rule["classes"]]
    served = client.score(tqdm(predictions.file.to_list(), desc="images", leave=False))
    expected, predicted = predictions[columns].to_numpy(np.float64), predictions.predicted.to_numpy()
    scores = served[columns].to_numpy(np.float32)
    labels = [decide(each, rule["classes"], rule["positive_class"], rule["threshold"]) for each in (scores, expected)]
    differences = np.abs(scores - expected).max(axis=1)  # NaN where there is no score
    familiar = np.abs(served.familiar - predictions.familiar.to_numpy())
    wrong = ~(differences <= tolerance) | ~(familiar <= 10 * tolerance)
    wrong |= (served.label != labels[0]) | (predicted != labels[1])
    if wrong.any():
        first = int(np.argmax(wrong))
        source, error, label = served.loc[first, ["source", "error", "label"]]
        raise RunFailed(
            f"{wrong.sum()} of {len(served)} files do not get the run's scores and labels; the first: {source}, "
            f"{error or f'{differences[first]:.3g} apart, familiar {familiar[first]:.3g}'}, served {label!r} and not "
            f"{predicted[first]!r}; at most {tolerance:g}, of familiar {10 * tolerance:g}, is allowed. Serve a version "
            "of this run's model; if the image has changed since the run, train a new run."
        )
    tipped = int((served.label != predicted).sum())
    apart = {"max_abs_diff": float(differences.max()), "familiar_max_abs_diff": float(familiar.max())}
    return {"n": len(served)} | apart | {"tolerance": tolerance, "borderline": tipped}
