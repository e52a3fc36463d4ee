"""AdamW with a rate for each layer: what ImageNet taught early layers (edges, colors) is changed less than the head.

Layer-wise rates that decay towards the input: Howard and Ruder 2018, arXiv:1801.06146; Clark et al. 2020 (ELECTRA),
arXiv:2003.10555; Bao et al. 2021 (BEiT), arXiv:2106.08254.
"""

import keras


@keras.saving.register_keras_serializable("tdsp_vision")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) in which each variable has its own share of the rate.

    The share scales both the update and the weight decay, since AdamW multiplies both by the learning rate. Biases
    and the scale and offset of normalizations, the variables with a single axis, do not decay: they are few, so they
    do not overfit, and pulling a scale towards zero only fights the layer after it (He et al. 2019, "Bag of tricks",
    arXiv:1812.01187, section 3.1).

    Args:
        learning_rate: float or schedule; the rate of a variable with share 1.
        weight_decay: each step takes learning rate * share * weight_decay of a variable away from it.
        rates: share by layer and variable ("scores/kernel"), as `depth_rates` gives it; every trainable variable has
            to be there. None: 1 for all.
        **kwargs: as for `keras.optimizers.AdamW`.

    Raises:
        ValueError: when first used, if `rates` lacks a variable.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.004, rates: dict[str, float] | None = None, **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.rates = None if rates is None else dict(rates)
        self.exclude_from_weight_decay(var_names=[""])  # from Keras's, which has one rate; see `update_step`

    def build(self, variables):
        """Look up the share of each of the `variables`, once."""
        names = [_name(variable) for variable in variables]
        missing = [name for name in names if self.rates is not None and name not in self.rates]
        if missing:
            raise ValueError(
                f"LayerwiseAdamW got no rate for {len(missing)} of {len(variables)} variables, the first of them "
                f"{missing[0]!r}; take depth_rates() of the very model that is trained."
            )
        self._shares = [1.0 if self.rates is None else self.rates[name] for name in names]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        """Decay, then Adam's update, in the order of `keras.optimizers.AdamW`, both at the variable's own rate."""
        rate = keras.ops.cast(learning_rate, variable.dtype) * self._shares[self._get_variable_index(variable)]
        if len(variable.shape) > 1:
            self.assign_sub(variable, variable * (rate * self.weight_decay))
        super().update_step(gradient, variable, rate)

    def get_config(self):
        """What `from_config` needs to build the same optimizer."""
        return super().get_config() | {"rates": None if self.rates is None else dict(self.rates)}


def depth_rates(model: keras.Model, stage_ends: list[str], decay: float) -> dict[str, float]:
    """Share of the learning rate for each trainable variable: `decay` to the power of its distance from the head.

    Args:
        model: a functional model with one trunk, the backbone's layers directly in it.
        stage_ends: names of the layers that end its stages, from the input on. Layers up to the first one are stage
            1 of N and get decay ** N, those of the last stage get decay, and all after them (the head) 1.
        decay: above 0, at most 1; 1 gives every variable the whole rate. 0.5 to 0.9 are sensible.

    Returns:
        share by layer and variable, such as "scores/kernel", for `LayerwiseAdamW`.

    Raises:
        ValueError: for a decay out of range, for names that are not layers of the model in this order, and for two
            layers of one name, one of them nested, that need different shares.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}; allowed are numbers above 0 up to 1.")
    names = [layer.name for layer in model.layers]  # Keras sorts them from input to output
    unknown = [name for name in stage_ends if name not in names]
    if unknown:
        raise ValueError(f"The model has no layer {unknown[0]!r} to end a stage; give stage_ends() of its backbone.")
    ends = [names.index(name) for name in stage_ends]
    if ends != sorted(set(ends)):
        raise ValueError(f"Stages end at {stage_ends}, which is not the order of the layers from input to output.")
    rates = {}
    for position, layer in enumerate(model.layers):
        share = decay ** sum(position <= end for end in ends)
        for name in map(_name, layer.trainable_variables):
            if rates.setdefault(name, share) != share:
                raise ValueError(f"Two variables are called {name!r} and need different rates; rename one's layer.")
    return rates


def _name(variable) -> str:
    """Layer and variable; a path also holds the models around them, which are others once a model was saved."""
    return "/".join(variable.path.split("/")[-2:])
