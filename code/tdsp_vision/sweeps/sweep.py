"""Many runs of the modeling notebook: `python -m tdsp_vision sweep -g CLASSIFIER svm,dnn -g SEED 0,1,2 …`.

Optuna hands out the combinations: all of a grid (`GridSampler`), or drawn from ranges where the ones before were good
(`TPESampler`: Bergstra et al. 2011), remembered in `search.db`. Each combination is a `trial.Trial`, which runs exactly
once; a sweep that is started again goes on, because trials whose run is there are only read. In
`outputs/<dataset>/sweeps/<id>/results.csv` is a row for each trial.

Results are sorted by validation. By the test, the best of many would partly be the luckiest, and the number that is to
say how good the model is would be too high.
"""

import hashlib
import itertools
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.files import file_lock, write_text
from tdsp_vision.parameters import LIMITS, as_settings, check_parameters, defaults, nearest, read, read_settings, refuse
from tdsp_vision.sweeps.cluster import connect
from tdsp_vision.sweeps.trial import make_trial, run_trial

METRICS = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
RESULTS = ["status", "validation", "test", "train_seconds", "seconds", "run", "error", "notebook"]
_PLACES = ("DATASET_NAME", "DATA_DIR", "OUTPUT_DIR")  # a sweep is about one data set in one place


@dataclass(frozen=True)
class Sweep:
    """A sweep: `choices` name -> values to try, `ranges` name -> (low, high, log), `others` all that does not vary."""

    others: dict[str, object]
    choices: dict[str, list]
    ranges: dict[str, tuple[float, float, bool]]
    metric: str
    trials: int | None = None  # of a search; None is a grid

    @property
    def names(self) -> list[str]:
        """Parameters that vary."""
        return [*self.choices, *self.ranges]

    @property
    def folder(self) -> Path:
        """Folder of results; its name is a digest of all that shapes them."""
        base = make_trial({}, self.others)
        content = [base.name, self.choices, self.ranges, self.metric, self.trials is None]
        return base.outputs.sweeps / hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def plan_sweep(
    choices: Mapping[str, str], fixed: Mapping[str, object], ranges: Mapping[str, str], metric: str = "auc", trials=None
) -> Sweep:
    """A sweep over the modeling notebook; every value is typed and checked here.

    Args:
        choices: name -> values with commas between, as in "224,448"; a comma within brackets belongs to a value.
        fixed: name -> text or YAML value, the same in every trial.
        ranges: name -> `LOW..HIGH` or `LOW..HIGH:log`, for a search of `trials` trials.

    Raises:
        ParameterError: an unknown name, a name given twice, a wrong value, a parameter that cannot vary.
    """
    names = [*choices, *ranges, *fixed]
    for name in names:
        if name not in LIMITS["model"]:
            near = nearest(name, LIMITS["model"])
            raise ParameterError(f"{name} is no parameter of the modeling notebook; the nearest of those is {near}.")
        if names.count(name) > 1:
            raise ParameterError(f"{name} is given more than once; give it once: its values, its range or its value.")
        if name == "RUN_NAME" or (name in _PLACES and name not in fixed):
            raise ParameterError(f"{name} cannot vary in a sweep, which is about one data set and names its own runs.")
    if not (choices or ranges) or (ranges and not trials):
        raise ParameterError("Give values with -g NAME VALUE,VALUE or, for a search, ranges with -r and --trials.")
    # Which run is the previous one would depend on the order in which trials end.
    others = defaults(paths.NOTEBOOKS["model"]) | {"COMPARE": "none"}
    others |= {name: read("model", name, value) for name, value in fixed.items()}
    tried = {name: _values(name, text) for name, text in sorted(choices.items())}
    spans = {name: _range(name, text) for name, text in sorted(ranges.items())}
    ends = tried | {name: [low, high] for name, (low, high, _) in spans.items()}
    for values in itertools.product(*ends.values()):
        check_parameters("model", others | dict(zip(ends, values, strict=True)))
    return Sweep(others, tried, spans, metric, trials)


def _values(name: str, text: str) -> list:
    """Values between the commas that are outside of brackets: `[1,2],[3]` has two."""
    parts = re.findall(r"(?:[^,\[\](){}]|\[[^\]]*\]|\([^)]*\)|\{[^}]*\})+", text) or [""]
    return [read("model", name, part.strip()) for part in parts]


def _range(name: str, text: str) -> tuple[float, float, bool]:
    found = re.fullmatch(r"\s*(.+?)\.\.(.+?)(:log)?\s*", text)
    numbers = found and LIMITS["model"][name].annotation in (int, float)
    low, high = (read("model", name, end) for end in found.groups()[:2]) if numbers else (0, 0)
    if low >= high or (found[3] and low <= 0):
        refuse(name, text, "a range of numbers, the lower one first, as in 0.1..0.5, or 0.0001..0.01:log above 0")
    return low, high, bool(found[3])


def run_sweep(sweep: Sweep, run: Callable[..., dict] = run_trial, jobs: int = 1):
    """Run the trials of a sweep, `jobs` at once; prints a line for each that ends.

    Args:
        run: `run_trial`, or that of a cluster.

    Returns:
        pandas.DataFrame, a row for each trial, best validation first; see `results_table`.

    Raises:
        filelock.Timeout: another process runs the same sweep.
    """

    def show(study, asked) -> None:
        words = " ".join(f"{name}={value}" for name, value in asked.params.items())
        result = asked.user_attrs
        score = "" if result["validation"] is None else f", validation {sweep.metric} {result['validation']:.3f}"
        click.echo(f"{words} ".ljust(40, ".") + f" {result['seconds']:.0f} s, {result['status']}{score}")
        write_text(sweep.folder / "results.csv", results_table(sweep, study).to_csv(index=False))

    with file_lock(sweep.folder / "lock", wait=False):
        study, left = _study(sweep)
        study.optimize(partial(_objective, sweep, run), left, n_jobs=jobs, callbacks=[show], catch=RunFailed)
    return results_table(sweep, study)


def _study(sweep: Sweep):
    """Optuna's study of a sweep, and how many trials are to be run; what was running at a kill is queued again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {name: [json.dumps(value) for value in values] for name, values in sweep.choices.items()}
    storage = f"sqlite:///{sweep.folder / 'search.db'}" if sweep.trials else None
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    if not sweep.trials:
        study.sampler = optuna.samplers.GridSampler(space, seed=0)
        return study, math.prod(map(len, space.values()))
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # repeatable, and anew when it goes on
    for one in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(one.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(one.params)
    return study, max(0, sweep.trials - len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])))


def _objective(sweep: Sweep, run: Callable[..., dict], asked) -> float:
    """Draw values, run their trial, note in the study what came of it, and return its metric."""
    values = {}
    for name, choices in sweep.choices.items():
        values[name] = json.loads(asked.suggest_categorical(name, [json.dumps(value) for value in choices]))
    for name, (low, high, log) in sweep.ranges.items():
        draw = asked.suggest_int if isinstance(low, int) else asked.suggest_float
        values[name] = draw(name, low, high, log=log)
    trial = make_trial(values, sweep.others)
    # What a trial needs on another machine too: where the workspace lies, and where history is kept.
    ours = {name: value for name, value in os.environ.items() if name.startswith(("TDSP_", "MLFLOW_"))}
    result = run(trial, ours | {"TDSP_WORKSPACE": str(paths.workspace())})
    folder = trial.run()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8")) if folder else {}
    result |= {side: measure(metrics.get(side, {}), sweep.metric) for side in ("validation", "test")}
    result |= {"train_seconds": metrics.get("seconds", {}).get("train"), "notebook": paths.shown(trial.executed)}
    for name, value in result.items():
        asked.set_user_attr(name, value)
    if result["status"] == "failed":
        raise RunFailed(result["error"])
    return math.nan if result["validation"] is None else result["validation"]


def measure(block: Mapping[str, float | None], metric: str) -> float | None:
    """A metric of a block of metrics.json; balanced accuracy where there is no AUC."""
    return block.get("balanced_accuracy") if metric == "auc" and block.get("auc") is None else block.get(metric)


def results_table(sweep: Sweep, study):
    """pandas.DataFrame, a row for each trial that ended, best validation first: what varies, status, run, error,
    executed notebook, seconds of training, the metric (0 to 1) on validation and test; and on validation its mean,
    lowest and highest value over SEED for the combination that the row belongs to."""
    table = study.trials_dataframe(attrs=("params", "user_attrs"))
    table.columns = [column.removeprefix("params_").removeprefix("user_attrs_") for column in table]
    table = table.reindex(columns=[*sweep.names, *RESULTS]).dropna(subset="status")[::-1].drop_duplicates(sweep.names)
    for name in sweep.choices:  # lists stay text, by which rows can be grouped
        table[name] = [text if text.startswith("[") else json.loads(text) for text in table[name]]
    table = table.astype({"validation": float, "test": float})
    over_seeds = table.groupby([name for name in sweep.names if name != "SEED"] or [0] * len(table)).validation
    for name, how in (("mean", "mean"), ("lowest", "min"), ("highest", "max")):
        table[name] = over_seeds.transform(how)
    return table.sort_values(["status", "mean", "validation"], ascending=[True, False, False], ignore_index=True)


def paired_differences(sweep: Sweep, table) -> list[str]:
    """Sentences: how far the best combination is ahead of each other one, seed by seed, where SEED varies.

    Each seed draws its own test, but where the data came divided: there all seeds have the same.
    """
    names = [name for name in sweep.names if name != "SEED"]
    if len(names) == len(sweep.names) or not names:
        return []
    done = table[table.status == "done"]
    title = done[names].astype(str).apply(lambda row: " ".join(f"{k}={v}" for k, v in row.items()), axis=1)
    scores = done.assign(title=title).pivot(index="SEED", columns="title", values="test")
    first, *others = title.unique()[:12]
    ahead = {other: d for other in others if len(d := (scores[first] - scores[other]).dropna())}
    return [
        f"{first} minus {other}: {d.mean():+.3f} of test {METRICS[sweep.metric]} in the mean of {len(d)} seeds"
        f" ({d.min():+.3f} to {d.max():+.3f}), above 0 in {(d > 0).sum()} of them."
        for other, d in ahead.items()
    ]


def in_words(sweep: Sweep, table) -> str:
    """The table of what is done, the comparison over SEED, a sentence for each failed trial, and where files lie."""
    done, failed = table[table.status == "done"], table[table.status == "failed"]
    over_seeds = ["mean", "lowest", "highest"] if "SEED" in sweep.names else []
    columns = [*sweep.names, "validation", *over_seeds, "test", "train_seconds", "run"]
    lines = [done[columns].to_string(index=False, na_rep="-", float_format="{:.4g}".format), ""] if len(done) else []
    lines += paired_differences(sweep, table)
    for row in failed.to_dict("records"):
        title = " ".join(f"{name}={row[name]}" for name in sweep.names)
        lines.append(f"failed: {title}: {row['error']} ({row['notebook']})")
    lines.append(f"Sorted by the {METRICS[sweep.metric]} of validation; the test only says how good the chosen one is.")
    return "\n".join([*lines, f"{len(done)} of {len(table)} done: {paths.shown(sweep.folder / 'results.csv')}"])


def _end(*_) -> None:
    """End this process as a kill does, which is safe: its kernels end within seconds, and a trial is done or not."""
    click.echo("interrupted; the same command goes on from there", err=True)
    os._exit(130)


@click.command("sweep")
@click.option("choices", "-g", "--grid", nargs=2, multiple=True, metavar="NAME VALUES", help="Values, as in 224,448.")
@click.option("fixed", "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="Same in all trials.")
@click.option("file", "-f", "--file", type=click.Path(path_type=Path), help="YAML file of such parameters; -p wins.")
@click.option("ranges", "-r", "--range", nargs=2, multiple=True, metavar="NAME LOW..HIGH[:log]", help="To search.")
@click.option("--trials", type=click.IntRange(1), help="Search: how many in all, earlier ones of this search included.")
@click.option("--jobs", type=click.IntRange(1), help="Trials at once; default 1, with --ray what the cluster holds.")
@click.option("--metric", type=click.Choice(list(METRICS)), default="auc", show_default=True, help="Of the validation.")
@click.option("--ray", metavar="ADDRESS|auto", help="Run on this Ray cluster; all nodes share outputs.")
@click.option("--gpus", type=click.FloatRange(0), default=0, show_default=True, help="Ray: GPUs a trial.")
def sweep_command(choices, fixed, file, ranges, trials, jobs, metric, ray, gpus) -> None:
    """Run the modeling notebook for many combinations of its parameters.

    With --trials values are searched (Optuna), else all combinations of -g are run. The same command goes on where it
    was interrupted: what is done is not run again, what failed is tried again (a search draws anew). `-g SEED
    0,1,2,3,4` repeats every combination on five splits, unless the data came divided, and compares them seed by seed.

    \b
      python -m tdsp_vision sweep -g CLASSIFIER svm,dnn -g IMAGE_SIZE 224,448 --jobs 2
      python -m tdsp_vision sweep -g SVM_FEATURES last,pooled -g SEED 0,1,2,3,4
      python -m tdsp_vision sweep --trials 20 -p CLASSIFIER dnn -r LEARNING_RATE 1e-4..1e-3:log
    """
    signal.signal(signal.SIGINT, _end)
    given = (read_settings(file) if file else {}) | as_settings(fixed, "-p")
    made = plan_sweep(as_settings(choices, "-g"), given, as_settings(ranges, "-r"), metric, trials)
    run, room = connect(ray, gpus) if ray else (run_trial, 1)
    click.echo(f"sweep of {made.others['DATASET_NAME']}, a line for each trial that ends: {paths.shown(made.folder)}")
    table = run_sweep(made, run, jobs or room)
    click.echo(f"\n{in_words(made, table)}")
    sys.exit(1 if (table.status == "failed").any() else 0)
