"""What came out of a sweep: a table, results.csv and results.png, sorted by a metric of the validation.

Never by the test: the best of many trials by their test metric is partly the luckiest, and its number, the one that
is to say how good the model is, would be too high. The test stands beside, to be read for the trial that was chosen.
"""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tdsp_vision import paths
from tdsp_vision.files import write_text
from tdsp_vision.sweeps.trial import Trial, plain

if TYPE_CHECKING:
    import pandas as pd

METRICS = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
_HEADS = {"validation_auc": "val. AUC", "validation_balanced_accuracy": "val. bal. acc.", "test_auc": "test AUC"}
_HEADS |= {"test_balanced_accuracy": "test bal. acc.", "train_seconds": "train s"}
_WHY = "Sorted by validation, by which to choose; the test only says how good the chosen one is."


def measure(trial: Trial, result: dict, side: str, metric: str) -> float | None:
    """A metric of `side` ("validation", "test", "seconds") of the trial's run; None where there is none."""
    file = trial.outputs.runs / result.get("run", "") / "metrics.json"
    if "run" not in result or not file.is_file():
        return None
    return _metrics(file).get(side, {}).get(metric)


@functools.cache
def _metrics(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))  # of a run, which never changes


def results_table(ended: list[tuple[Trial, dict]], metric: str) -> "pd.DataFrame":
    """One row per trial: number, status, what varies, metrics, seconds, run, error, notebook; best validation first."""
    import pandas as pd

    rows = []
    for trial, result in ended:
        row = {"trial": trial.number, "status": result["status"]} | {n: _plain(v) for n, v in trial.values.items()}
        for side in ("validation", "test"):
            row |= {f"{side}_{name}": measure(trial, result, side, name) for name in METRICS}
        row |= {f"{name}_seconds": measure(trial, result, "seconds", name) for name in ("featurize", "train", "total")}
        row |= {"run": result.get("run"), "error": result.get("error"), "notebook": paths.shown(trial.executed)}
        rows.append(row)
    numbers = [f"{side}_{name}" for side in ("validation", "test") for name in METRICS]
    table = pd.DataFrame(rows).sort_values("trial")
    table[numbers] = table[numbers].astype(float)
    return table.sort_values(f"validation_{metric}", ascending=False, kind="stable", ignore_index=True)


def write_csv(sweep, ended: list[tuple[Trial, dict]], metric: str) -> None:
    """Write results.csv of `sweep`, whole or not at all."""
    if ended:
        write_text(sweep.folder / "results.csv", results_table(ended, metric).to_csv(index=False))


def in_words(sweep, ended: list[tuple[Trial, dict]], metric: str) -> str:
    """The table of the trials that are done, a sentence for each that is not, and where the files lie."""
    table = results_table(ended, metric)
    table[sweep.names] = table[sweep.names].map(plain)
    done, rest = table[table.status == "done"], table[table.status != "done"]
    lines = []
    if len(done):
        shown = done[["trial", *sweep.names, *_HEADS, "run"]].rename(columns=_HEADS)
        lines += [shown.to_string(index=False, na_rep="-", float_format=_three), "", _WHY, ""]
    for row in rest.to_dict("records"):
        title = " ".join(f"{name}={row[name]}" for name in sweep.names)
        said = f": {row['error']} ({row['notebook']})" if row["status"] == "failed" else ""
        lines.append(f"trial {row['trial']} {row['status']}, {title}{said}")
    files = "results.csv, results.png" if len(done) else "results.csv"
    return "\n".join([*lines, f"{len(done)} of {len(table)} done; {paths.shown(sweep.folder)}: {files}"])


def _three(value: float) -> str:
    return f"{value:.3f}"


def _plain(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value
