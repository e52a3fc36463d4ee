"""What a walkthrough prints at its end: a table of its results.

The table reads only what the notebooks left behind: `dataset.json` (counts), `metrics.json` (classifier, test),
`request.json` (instances), `response.json` (predictions) and `service.json` (files, classes, what). A file or key
that should be there and is not is an error that is said; a measure that does not exist for a task (`null`, such as
AUC without a positive class) is shown as `-`. Plain ASCII.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tdsp_vision import paths
from tdsp_vision.execution import RunFailed


def summary(
    dataset: paths.DatasetPaths, outputs: paths.OutputPaths, stages: Iterable[str], runs: list[str], notebooks: Path
) -> str:
    """Table of a finished walkthrough, several lines.

    Args:
        stages: which of data, model, deploy were run; only their results are shown.
        runs: ids of the modelling runs, in order.
        notebooks: folder of the executed notebooks.

    Raises:
        RunFailed: a file that a stage should have written is missing or not what it should be.
    """
    stages = set(stages)
    lines = []
    if stages & {"data", "model"}:
        lines += [_row("images", _images(dataset.info)), ""]
    if runs:
        lines += [*_models(outputs, runs), ""]
        for run in runs:
            lines.append(_row("model", paths.shown(outputs.runs / run / "model.keras")))
            lines.append(_row("figures", paths.shown(outputs.runs / run / "figures")))
    lines.append(_row("notebooks", paths.shown(notebooks)))
    if "deploy" in stages:
        lines += ["", *_scored_request(outputs.deployment)]
    return "\n".join(lines)


def latest_run(outputs: paths.OutputPaths) -> str:
    """Run id in `latest.txt`.

    Raises:
        RunFailed: the file is missing or empty.
    """
    run = outputs.latest.read_text(encoding="utf-8").strip() if outputs.latest.is_file() else ""
    if not run:
        raise RunFailed(f"{paths.shown(outputs.latest)} names no run; the modeling notebook should have written it.")
    return run


def _row(name: str, text: str) -> str:
    return f"{name:<16}{text}"


def _read(file: Path, key: str) -> dict:
    """The JSON object in `file`, which has `key`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFailed(f"{paths.shown(file)} is missing; the notebook ran to its end without writing it.") from None
    except ValueError as error:
        raise RunFailed(f"{paths.shown(file)} is not valid JSON: {error}.") from None
    if not isinstance(content, dict) or key not in content:
        raise RunFailed(f"{paths.shown(file)} has no {key!r}: {json.dumps(content)[:200]}")
    return content


def _images(info: Path) -> str:
    counts = _read(info, "counts")["counts"]
    return f"{sum(counts.values())}: " + ", ".join(f"{label} {count}" for label, count in counts.items())


def _models(outputs: paths.OutputPaths, runs: list[str]) -> list[str]:
    lines = [_row("classifier", "accuracy   balanced accuracy   AUC (95% interval)    run")]
    for run in runs:
        metrics = _read(outputs.runs / run / "metrics.json", "test")
        test = metrics["test"]
        interval = test.get("auc_ci")
        auc = _number(test.get("auc")) + (f" ({'-'.join(map(_number, interval))})" if interval else "")
        accuracy, balanced = _number(test.get("accuracy")), _number(test.get("balanced_accuracy"))
        lines.append(_row(str(metrics.get("classifier")), f"{accuracy:<11}{balanced:<20}{auc:<22}{run}"))
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _scored_request(folder: Path) -> list[str]:
    """The request that the deployment notebook sent, and who answered what."""
    _read(folder / "request.json", "instances")
    service = _read(folder / "service.json", "files")
    predictions = _read(folder / "response.json", "predictions")["predictions"]
    files = service["files"]
    if len(files) != len(predictions):
        raise RunFailed(
            f"{paths.shown(folder / 'response.json')} holds {len(predictions)} predictions for {len(files)} files."
        )
    lines = [_row("scored request", f"{paths.shown(folder / 'request.json')}, {len(files)} images")]
    if service.get("what"):
        lines.append(_row("", str(service["what"])))
    for file, prediction in zip(files, predictions, strict=True):
        name = "/".join(Path(file).parts[-2:])
        lines.append(_row("", f"{name:<36} {_scored(prediction, service.get('classes', []))}"))
    return lines


def _scored(prediction: object, classes: list[str]) -> str:
    """`malignant 0.413`: the label and its score, which under a threshold need not be the highest."""
    if not isinstance(prediction, dict):
        return json.dumps(prediction)
    label, scores = prediction.get("label"), prediction.get("scores", [])
    if prediction.get("valid") is False:
        return "cannot be read as an image"
    if label in classes and len(scores) == len(classes):
        return f"{label} {scores[classes.index(label)]:.3f}"
    return json.dumps(prediction)
