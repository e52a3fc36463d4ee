"""The figure of a sweep: how good the trials are on validation, against the time that their training took."""

from tdsp_vision.files import whole_file
from tdsp_vision.sweeps.results import METRICS, measure
from tdsp_vision.sweeps.trial import Trial


def write_figure(sweep, ended: list[tuple[Trial, dict]]) -> None:
    """Write results.png of `sweep`; nothing where no trial is done.

    A point is a trial, its number beside it, with the 95 % interval of its metric where the run has one; colors are
    the values of the parameter with the fewest values above one.
    """
    from matplotlib.figure import Figure

    done = [(trial, result) for trial, result in ended if measure(trial, result, "seconds", "train") is not None]
    if not done:
        return
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    groups = _groups(sweep, done)
    for axis, (metric, words) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        for number, (label, members) in enumerate(groups.items()):
            _draw(axis, members, metric, label, f"C{number}")
        seconds = [measure(trial, result, "seconds", "train") for trial, result in done]
        if min(seconds) > 0 and max(seconds) > 10 * min(seconds):
            axis.set_xscale("log")
        axis.set(xlabel="training time in seconds", ylabel=f"{words} on validation, with 95 % interval")
        axis.spines[["top", "right"]].set_visible(False)
    if len(groups) > 1:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.suptitle(f"{sweep.outputs.dataset}: {len(done)} trials of sweep {sweep.id}", fontsize=11)
    with whole_file(sweep.folder / "results.png") as draft:
        figure.savefig(draft, dpi=120)


def _groups(sweep, done: list[tuple[Trial, dict]]) -> dict[str, list[tuple[Trial, dict]]]:
    """Trials by the values of one parameter, 2 to 8 of them; all in one where no parameter has so few."""
    few = {name: len(values) for name, values in sweep.choices.items() if 2 <= len(values) <= 8}
    if not few:
        return {"": done}
    name = min(few, key=few.get)
    groups = {f"{name} {value}": [] for value in sweep.choices[name]}
    for trial, result in done:
        groups[f"{name} {trial.values[name]}"].append((trial, result))
    return groups


def _draw(axis, members: list[tuple[Trial, dict]], metric: str, label: str, color: str) -> None:
    for trial, result in members:
        value = measure(trial, result, "validation", metric)
        if value is None:
            continue
        seconds = measure(trial, result, "seconds", "train")
        low, high = (measure(trial, result, "validation", "intervals") or {}).get(metric) or (value, value)
        axis.plot([seconds, seconds], [low, high], color=color, lw=0.8, alpha=0.45)
        axis.annotate(str(trial.number), (seconds, value), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axis.plot(seconds, value, "o", color=color, ms=6, label=label)
        label = "_nolegend_"  # one entry per group
