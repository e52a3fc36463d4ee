"""Refine a pre-trained network: the parts that are wrong in ways one does not see. The recipe is in the notebook."""

import keras
import numpy as np
from sklearn.utils.class_weight import compute_class_weight


def freeze_batch_normalization(model: keras.Model) -> int:
    """Keep the means and variances of ImageNet in every batch normalization; returns how many were frozen.

    A batch of 32 pictures, out of a few hundred, estimates them badly: training then looks well and evaluation,
    which uses the running averages, does not. A frozen layer also normalizes in the same way in both (Keras
    guide "Transfer learning and fine-tuning").
    """
    frozen = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            frozen += freeze_batch_normalization(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
            frozen += 1
    return frozen


def class_weights(targets: np.ndarray) -> dict[int, float]:
    """A weight for each class, n / (K * n_class), for `fit`: the rarer a class, the more each of its images counts.

    Args:
        targets: int [n], 0 to K - 1.
    """
    classes = np.unique(targets)
    weights = compute_class_weight("balanced", classes=classes, y=targets)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


def averaging(epochs: float, steps_per_epoch: int) -> dict:
    """Arguments that make a Keras optimizer keep averages of the weights, for `AveragedWeights`.

    Args:
        epochs: the mean reaches back over about so many epochs; 0 for no averages, 1 to 3 are sensible.
        steps_per_epoch: batches in one pass, at least 1.

    Returns:
        `use_ema` and `ema_momentum`; {} for no averages.
    """
    return {"use_ema": True, "ema_momentum": 1 - 1 / max(1, epochs * steps_per_epoch)} if epochs else {}


class AveragedWeights(keras.callbacks.Callback):
    """Validate and keep the exponential moving average of the weights, and train on with the weights themselves.

    Weights of late steps jump about a minimum; their mean lies nearer to it (Polyak and Juditsky 1992, "Acceleration
    of stochastic approximation by averaging"; Izmailov et al. 2018, arXiv:1803.05407; as a moving average Tarvainen
    and Valpola 2017, arXiv:1703.01780). Validation, and each callback that is listed after this one, finds the
    averages in the model and the weights in the optimizer's place for averages; each epoch but the first begins by
    changing them back. So a checkpoint between two epochs says by its epoch alone which is where, and Keras' own
    `SwapEMAWeights`, which remembers it in the process, cannot resume. The optimizer has to have `use_ema=True`
    (`averaging`). Statistics of batch normalization are no weights and stay those of the training.

        callbacks = [AveragedWeights(), checkpoint]          # averages first

    After the last epoch Keras puts the optimizer's averages, here the weights, into the model; `Checkpoint` then
    gives it the averages of the best epoch.
    """

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Train on with the weights."""
        if epoch:
            self._swap()
        self._averaged = False

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Validate the averages."""
        self._swap()
        self._averaged = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Without validation the next callbacks find the averages too."""
        if not self._averaged:
            self._swap()

    def _swap(self) -> None:
        averages = [variable for variable in self.model.optimizer.variables if variable.name.endswith("_average")]
        if not averages:
            raise ValueError("AveragedWeights got an optimizer without averages; give it use_ema=True (averaging).")
        for variable, average in zip(self.model.trainable_variables, averages, strict=True):
            # Copies: on a CPU, numpy() may be the variable's own memory.
            value, mean = variable.numpy().copy(), average.numpy().copy()
            variable.assign(mean)
            average.assign(value)
