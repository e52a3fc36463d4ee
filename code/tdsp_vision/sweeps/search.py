"""A search with Optuna: values are drawn from ranges and choices where the trials before them were good.

search.db (sqlite) in the sweep's folder remembers every trial, so the same command goes on; what was running when a
search was killed is run again with the same values. A trial whose validation accuracy, epoch by epoch, is below the
median of the earlier ones is ended. Sources: Akiba et al. 2019, arXiv:1907.10902; the default sampler (TPE) is of
Bergstra et al. 2011; optuna.readthedocs.io, "Ask-and-Tell Interface".
"""

import json

from tdsp_vision.sweeps.plan import Sweep
from tdsp_vision.sweeps.results import measure
from tdsp_vision.sweeps.trial import Trial

CURVE = "val_accuracy"  # unlike the loss, it means the same whatever LABEL_SMOOTHING is


class Search:
    """Trials of a search, up to `trials` that are done or pruned; one that fails is not drawn again.

    Args:
        metric: of the validation, to be as high as possible.

    Attributes:
        total, past: as those of `grid.Grid`.
    """

    def __init__(self, sweep: Sweep, trials: int, metric: str):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sweep.folder.mkdir(parents=True, exist_ok=True)
        self.sweep, self.metric = sweep, metric
        self.study = optuna.create_study(
            storage=f"sqlite:///{sweep.folder / 'search.db'}",
            study_name=f"{sweep.id} {metric}",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
            load_if_exists=True,
        )
        known = self.study.get_trials(deepcopy=False)
        self.study.sampler = optuna.samplers.TPESampler(seed=len(known))  # repeatable, and anew when it goes on
        self.past, self._interrupted, self._asked, self._seen = [], [], {}, {}
        for one in known:
            if one.state.name == "RUNNING":
                self._interrupted.append(optuna.trial.Trial(self.study, one._trial_id))
            elif one.state.name in ("COMPLETE", "PRUNED"):
                self.past.append(self._past(one))
        self._left = max(0, trials - len(self.past))
        self.total = len(self.past) + self._left

    def next(self) -> Trial | None:
        """The next trial, one that was interrupted first; None when there are enough."""
        if not self._left:
            return None
        self._left -= 1
        asked = self._interrupted.pop(0) if self._interrupted else self.study.ask()
        trial = self.sweep.trial(asked.number + 1, self._values(asked))
        self._asked[trial.number] = asked
        self._seen[trial.number] = set(self.study.get_trials()[asked.number].intermediate_values)
        return trial

    def hopeless(self, trial: Trial) -> bool:
        """Whether the curve of a running trial is so low that it should be ended."""
        asked, seen = self._asked[trial.number], self._seen[trial.number]
        fresh = [row for row in trial.epochs() if row["epoch"] not in seen]
        for row in fresh:
            asked.report(row[CURVE], row["epoch"])
            seen.add(row["epoch"])
        return bool(fresh) and asked.should_prune()

    def tell(self, trial: Trial, result: dict) -> None:
        """Take note of a result; one that was stopped stays open and is run again by the same command."""
        from optuna.trial import TrialState

        asked = self._asked.pop(trial.number)
        value = measure(trial, result, "validation", self.metric)
        if result["status"] == "pruned":
            self.study.tell(asked, state=TrialState.PRUNED)
        elif value is not None:
            self.study.tell(asked, value)
        elif result["status"] != "stopped":
            self.study.tell(asked, state=TrialState.FAIL)

    def _past(self, one) -> tuple[Trial, dict]:
        values = {name: self._decoded(name, value) for name, value in one.params.items()}
        trial = self.sweep.trial(one.number + 1, {name: values[name] for name in self.sweep.names})
        result = trial.result() if one.state.name == "COMPLETE" else {"status": "pruned"}
        return trial, result or {"status": "gone"}  # somebody deleted the run; what it taught is kept

    def _values(self, asked) -> dict[str, object]:
        """Draw what is not drawn yet; Optuna gives a value that was drawn before once more."""
        for name, values in self.sweep.choices.items():
            asked.suggest_categorical(name, [json.dumps(value) for value in values])
        for name, (low, high, log) in self.sweep.ranges.items():
            draw = asked.suggest_int if isinstance(low, int) else asked.suggest_float
            draw(name, low, high, log=log)
        return {name: self._decoded(name, asked.params[name]) for name in self.sweep.names}

    def _decoded(self, name: str, value: object) -> object:
        return json.loads(value) if name in self.sweep.choices else value
