"""Command line: `python -m tdsp_vision sweep -g CLASSIFIER svm,dnn -g IMAGE_SIZE 224,448 …`.

Exit codes: 0 every trial is done (or pruned); 1 a trial failed, the sweep runs already, or no cluster answers;
2 a wrong name or value; 130 interrupted.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from tdsp_vision import paths
from tdsp_vision.exits import exit_codes
from tdsp_vision.parameters import ParameterError
from tdsp_vision.settings import read_settings


@dataclass(frozen=True)
class Options:
    """How a sweep is run, apart from what varies."""

    jobs: int | None
    ray: str | None
    cpus: float
    gpus: float
    search: str | None
    trials: int | None
    metric: str


@click.command()
@click.option("choices", "-g", "--grid", nargs=2, multiple=True, metavar="NAME VALUES", help="Values, as in 224,448.")
@click.option("fixed", "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="Same in all trials.")
@click.option("file", "-f", "--file", type=click.Path(path_type=Path), help="YAML file of such parameters; -p wins.")
@click.option("--jobs", type=click.IntRange(1), help="Trials at once; default 1, with --ray what the cluster holds.")
@click.option("--search", type=click.Choice(["optuna"]), help="Draw values instead of running all combinations.")
@click.option("--trials", type=click.IntRange(1), help="Search: how many in all, earlier ones of this search included.")
@click.option(
    "ranges", "-r", "--range", nargs=2, multiple=True, metavar="NAME LOW..HIGH[:log]", help="Search: a range."
)
@click.option("--metric", type=click.Choice(["auc", "balanced_accuracy"]), default="auc", show_default=True,
              help="Of the validation: sorts the results, and is what a search raises.")  # fmt: skip
@click.option(
    "--ray", metavar="ADDRESS|auto", help="Run on this Ray cluster; outputs on a folder that all nodes share."
)
@click.option(
    "--cpus", type=click.FloatRange(0, min_open=True), default=1, show_default=True, help="Ray: CPUs per trial."
)
@click.option("--gpus", type=click.FloatRange(0), default=0, show_default=True, help="Ray: GPUs per trial.")
def sweep(choices, fixed, file, ranges, **options) -> None:
    """Run the modeling notebook for many combinations of its parameters.

    A trial is one combination. The same command goes on where it was interrupted: what is done is not run again, what
    failed is tried again. Results are sorted by validation, not by the test: the best of many by the test would be
    partly the luckiest, and its test number too good.

    \b
      python -m tdsp_vision sweep -g CLASSIFIER svm,dnn -g IMAGE_SIZE 224,448 --jobs 2
      python -m tdsp_vision sweep -g SVM_C "[0.0001],[0.001, 0.01]" -p POSITIVE_CLASS ""
      python -m tdsp_vision sweep --search optuna --trials 20 -p CLASSIFIER dnn -r LEARNING_RATE 1e-4..1e-3:log
    """
    with exit_codes():
        given = (read_settings(file) if file else {}) | dict(fixed)
        failed = _sweep(choices, given, [name for name, _ in fixed], ranges, Options(**options))
    sys.exit(1 if failed else 0)


def _sweep(choices, fixed: dict, named: list[str], ranges, options: Options) -> bool:
    """Run it and print its results; whether a trial failed."""
    from tdsp_vision.sweeps.plan import plan_sweep

    _check(choices, named, ranges, options)
    sweep = plan_sweep(choices, fixed, ranges, paths.NOTEBOOKS)

    from tdsp_vision.sweeps.grid import Grid
    from tdsp_vision.sweeps.loop import SweepLoop, Threads, only_sweep
    from tdsp_vision.sweeps.results import in_words

    with only_sweep(sweep):
        click.echo(f"sweep {sweep.id} of {sweep.outputs.dataset}: {paths.shown(sweep.folder)}")
        machines = _machines(options) if options.ray else Threads(options.jobs or 1)
        source = _search(sweep, options) if options.search else Grid(sweep)
        loop = SweepLoop(sweep, source, machines, options.metric, sys.stdout)
        loop.run()
        click.echo(f"\n{in_words(sweep, loop.ended, options.metric)}")
    return any(result["status"] == "failed" for _, result in loop.ended)


def _check(choices, named: list[str], ranges, options: Options) -> None:
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise ParameterError(f"{twice[0]} is given more than once with -p; give it once.")
    if options.search and not options.trials:
        raise ParameterError("--search needs --trials, the number of trials in all.")
    if not options.search and (ranges or options.trials):
        given = "-r" if ranges else "--trials"
        raise ParameterError(f"{given} belongs to a search: add --search optuna, or leave {given} out.")
    if not choices and not ranges:
        raise ParameterError("Nothing varies: give values with -g NAME VALUE,VALUE or, for a search, a range with -r.")


def _machines(options: Options):
    from tdsp_vision.sweeps.cluster import RayCluster

    return RayCluster(options.ray, options.jobs, options.cpus, options.gpus)


def _search(sweep, options: Options):
    from tdsp_vision.sweeps.search import Search

    return Search(sweep, options.trials, options.metric)
