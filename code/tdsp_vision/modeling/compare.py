"""Runs side by side: what was set, what came out, and whether the difference is more than the luck of the test.

Read from each run folder (`runs`): parameters.json, every notebook parameter by name; metrics.json; of splits.csv and
predictions.csv the rows of the test. Runs are compared on the same test images only. They are named A, B, C, … in
order; the others are measured against A.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tdsp_vision.data.tables import read_csv, read_json
from tdsp_vision.modeling.intervals import paired_auc_difference
from tdsp_vision.modeling.runs import find_run
from tdsp_vision.paths import OutputPaths

LETTERS = "ABCDEFG"  # as many as there are colors that can be told apart in print
FILES = ("parameters.json", "metrics.json", "splits.csv", "predictions.csv")
METRICS = ["auc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1"]
METRICS += ["ece", "brier"]
OF_THE_SPLIT = ("SEED", "GROUP_BY", "TEST_FRACTION")


@dataclass(frozen=True)
class Comparison:
    """Two or more runs on the same test images.

    Attributes:
        runs: letter to run id, in the order in which they were asked for.
        about: the classes whose AUC counts: the positive one, or if there is none all of them (then it is the mean).
        settings: parameters as text, a column for each run; those that differ first, then the equal ones, then those
            that not every run has written down.
        metrics: of the test, as text with 95 % intervals, a column for each run; then facts about the training.
        differences: run, against ("A"), difference of the AUC, low, high (95 %, paired bootstrap of whole groups),
            sentence.
        disagreements: images that the runs call differently: path, label; for each run its call, as in `B`, and in
            `B score` the score of the positive class, or if there is none of the label. Hardest first: by the mean
            share of the images of other labels whose score of this label is as high or higher.
        predictions: letter to the test's rows of predictions.csv, by path, in the same order for each run.
    """

    runs: dict[str, str]
    about: list[str]
    settings: pd.DataFrame
    metrics: pd.DataFrame
    differences: pd.DataFrame
    disagreements: pd.DataFrame
    predictions: dict[str, pd.DataFrame]


class _Run(NamedTuple):
    run_id: str
    metrics: dict
    parameters: dict
    test: pd.DataFrame  # of splits.csv, by path


def compare_runs(outputs: OutputPaths, runs: list[str], seed: int = 0) -> Comparison:
    """Compare 2 to 7 runs, ids or "latest", on the test that they share; `seed` is that of the bootstrap.

    Raises:
        ValueError: if a run is unknown or named twice, if there are too few or too many, or if their tests differ.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise ValueError(f"There are {len(runs)} runs to compare, {list(runs)}; name 2 to {len(LETTERS)} of them.")
    found = {letter: _read(find_run(outputs, run)) for letter, run in zip(LETTERS, runs, strict=False)}
    ids = {letter: run.run_id for letter, run in found.items()}
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"The runs to compare are {', '.join(ids.values())}; name each of them once.")
    first = found["A"]
    for run in found.values():
        if obstacle := _obstacle(first, run):
            raise ValueError(f"{first.run_id} and {run.run_id} cannot be compared: {obstacle}.")
    positive, test = first.metrics["positive_class"], first.test.sort_index()
    about = [positive] if positive else first.metrics["classes"]
    predictions = {letter: _predictions(outputs.runs / run_id, test.index) for letter, run_id in ids.items()}
    settings, metrics = _settings(found), _metrics(found)
    settings.columns = metrics.columns = [f"{letter}: {run_id}" for letter, run_id in ids.items()]
    differences = _differences(predictions, about, test.group.to_numpy(), seed)
    return Comparison(ids, about, settings, metrics, differences, _disagreements(predictions, positive), predictions)


def comparable_runs(outputs: OutputPaths, run_id: str) -> list[str]:
    """Ids of the runs that were started before `run_id` and have the same test, newest first.

    Raises:
        ValueError: if there is no run `run_id`.
    """
    this = _read(find_run(outputs, run_id))
    earlier = sorted((path for path in outputs.runs.glob("[!.]*") if path.name < this.run_id), reverse=True)
    whole = [path for path in earlier if all((path / name).is_file() for name in FILES)]
    return [path.name for path in whole if not _obstacle(this, _read(path))]


def _read(folder: Path) -> _Run:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"Run {folder.name} has no {missing[0]}, so it cannot be compared; train it anew.")
    splits = read_csv(folder / "splits.csv")
    test = splits[splits.split == "test"].set_index("path")
    return _Run(folder.name, read_json(folder / "metrics.json"), read_json(folder / "parameters.json"), test)


def _predictions(folder: Path, paths: pd.Index) -> pd.DataFrame:
    names = dict.fromkeys(("path", "label", "predicted"), str)  # a class may be called 007
    return pd.read_csv(folder / "predictions.csv", dtype=names, keep_default_na=False).set_index("path").loc[paths]


def _obstacle(first: _Run, other: _Run) -> str:
    """Why the two cannot be compared, and what to do; "" if they can."""
    for name in ("dataset", "classes", "positive_class"):
        one, two = first.metrics[name], other.metrics[name]
        if one != two:
            return f"{name} is {one!r} in the first and {two!r} in the second; compare runs in which it is the same"
    only = len(first.test.index.symmetric_difference(other.test.index))
    if only:
        pairs = {name: (first.parameters.get(name), other.parameters.get(name)) for name in OF_THE_SPLIT}
        differ = [f"; {name} is {a!r} and {b!r}" for name, (a, b) in pairs.items() if a != b and None not in (a, b)]
        return (
            f"{only} images are in the test of only one of them ({len(first.test)} and {len(other.test)} test images"
            f"{''.join(differ)}); train both with the same {', '.join(OF_THE_SPLIT)} and manifest"
        )
    for name, what in (("label", "another label"), ("sha256", "another content")):
        if name in first.test and name in other.test:  # runs without sha256 are believed
            changed = int((first.test[name] != other.test[name].reindex(first.test.index)).sum())
            if changed:
                return (
                    f"{changed} of {len(first.test)} test images have {what} in the second; train both on today's data"
                )
    return ""


def _settings(runs: dict[str, _Run]) -> pd.DataFrame:
    rows: dict[str, dict] = {"differs": {}, "equal": {}, "not known of all": {}}
    most = max(runs.values(), key=lambda run: len(run.parameters)).parameters  # its order is the notebook's
    for name in dict.fromkeys([*most, *(name for run in runs.values() for name in run.parameters)]):
        known = [run.parameters[name] for run in runs.values() if name in run.parameters]
        kind = "equal" if len(known) == len(runs) else "not known of all"
        if any(value != known[0] for value in known):
            kind = "differs"
        if name not in ("RUN_NAME", "COMPARE"):  # they change nothing about the model
            rows[kind][name] = [str(run.parameters.get(name, "not known")) or "''" for run in runs.values()]
    index = pd.MultiIndex.from_tuples(((kind, name) for kind in rows for name in rows[kind]), names=["", "parameter"])
    return pd.DataFrame([values for kind in rows.values() for values in kind.values()], index)


def _metrics(runs: dict[str, _Run]) -> pd.DataFrame:
    columns = []
    for run in runs.values():
        test = run.metrics["test"]
        column = {name: _with_interval(test, name) for name in METRICS if test[name] is not None}
        column["auc of validation"] = _with_interval(run.metrics["validation"], "auc")
        if test["threshold"] is not None:
            column["threshold"] = f"{test['threshold']:.3f}"
        column["training images"] = str(run.metrics["splits"]["train"])
        columns.append(column | {"training (seconds)": f"{run.metrics['seconds']['train']:.1f}"})
    return pd.DataFrame(columns).T


def _with_interval(block: dict, name: str) -> str:
    low, high = block["intervals"][name]
    return f"{block[name]:.3f} ({low:.3f}-{high:.3f})"


def _differences(predictions: dict[str, pd.DataFrame], about: list[str], groups, seed: int) -> pd.DataFrame:
    first, rows = predictions["A"], []
    truths = first.label.to_numpy(object)[:, None] == np.array(about, object)
    for run in list(predictions)[1:]:
        scores = (table[[f"score_{name}" for name in about]].to_numpy(float) for table in (first, predictions[run]))
        found = paired_auc_difference(truths, *scores, groups, seed)
        rows.append((run, "A", *found, _sentence(run, "AUC" if len(about) < 3 else "mean AUC", *found)))
    return pd.DataFrame(rows, columns=["run", "against", "difference", "low", "high", "sentence"])


def _sentence(run: str, what: str, difference: float, low: float, high: float) -> str:
    if low <= 0 <= high:
        difference, low, high = (f"{round(value, 3) + 0.0:.3f}" for value in (difference, low, high))  # never -0.000
        interval = f"its 95 % interval, {low} to {high}, contains 0"
        return f"No difference shown: {run}'s {what} minus A's is {difference}, and {interval}."
    word, (near, far) = "higher" if low > 0 else "lower", sorted((abs(low), abs(high)))
    return f"{run}'s {what} is {word} than A's by {abs(difference):.3f} (95 % interval {near:.3f} to {far:.3f})."


def _disagreements(predictions: dict[str, pd.DataFrame], positive_class: str) -> pd.DataFrame:
    table, easy = predictions["A"][["label"]].copy(), pd.Series(0.0, predictions["A"].index)
    for run, own in predictions.items():
        table[run] = own.predicted
        for name in table.label.unique():
            inside, score = table.label == name, own[f"score_{name}"]
            others = np.sort(score[~inside])
            easy[inside] += np.searchsorted(others, score[inside]) / len(others)
            table.loc[inside, f"{run} score"] = own[f"score_{positive_class or name}"]
    hardest = table.loc[easy.sort_values(kind="stable").index]
    return hardest[hardest[list(predictions)].nunique(axis=1) > 1].reset_index()
