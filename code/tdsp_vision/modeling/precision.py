"""Precision: train in 16 bits where the processor is faster at it, score and save in float32 always.

A Keras policy "mixed_bfloat16" or "mixed_float16" computes in 16 bits and keeps the weights in float32 (Micikevicius
et al. 2018, arXiv:1710.03740; Kalamkar et al. 2019, arXiv:1905.12322). bfloat16 has the range of float32; float16 has
not, so Keras scales the loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
CPU_INFO = Path("/proc/cpuinfo")


def choose_precision(precision: str, backbone_name: str) -> tuple[str, str]:
    """The Keras policy to train with, and why, as a sentence.

    "auto" is a rule and no measurement, so that the same machine always gives the same answer. On a processor with
    bfloat16 instructions AlexNet and the ResNets train 1.2 to 1.6 times as fast in it; depthwise convolutions have
    no such kernels, and EfficientNet-Lite0 gets half as fast. GPUs: bfloat16 from compute capability 8.0 on, float16
    with 7.x (NVIDIA, "CUDA C++ programming guide", tensor cores).

    Args:
        precision: one of `PRECISIONS`.
        backbone_name: name of the network, as in the parameter BACKBONE.

    Raises:
        ValueError: for another precision, and for "mixed_float16" without a GPU, where training is ten times slower.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"PRECISION is {precision!r}; allowed are {', '.join(map(repr, PRECISIONS))}.")
    capability = gpu_capability()
    if precision == "mixed_float16" and capability is None:
        raise ValueError(
            "PRECISION is 'mixed_float16', which makes training on a CPU about ten times slower; without a GPU take "
            "'auto', 'float32' or 'mixed_bfloat16'."
        )
    if precision != "auto":
        return precision, f"{precision}: as PRECISION says."
    if capability is not None:
        policy = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
        return policy, f"{policy}: the GPU has compute capability {capability[0]}.{capability[1]}."
    if not cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return "float32", "float32: neither a GPU nor a processor with bfloat16 instructions was found."
    if backbone_name.startswith("efficientnet"):
        return "float32", f"float32: the depthwise convolutions of {backbone_name} are slower in bfloat16 on a CPU."
    return "mixed_bfloat16", "mixed_bfloat16: the processor has bfloat16 instructions."


def gpu_capability() -> tuple[int, int] | None:
    """Lowest compute capability of the GPUs that TensorFlow sees, such as (8, 0); (0, 0) if unknown, None without."""
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return min((tuple(found.get("compute_capability", (0, 0))) for found in details), default=None)


def cpu_flags() -> set[str]:
    """Instruction sets of the processor as Linux names them; empty on other systems, which are not asked."""
    if not CPU_INFO.exists():
        return set()
    flags = (line.split(":", 1)[1].split() for line in CPU_INFO.read_text().splitlines() if line.startswith("flags"))
    return set(next(flags, []))


@contextmanager
def with_precision(policy: str) -> Iterator[None]:
    """Layers built inside compute in `policy`; afterwards, and after an error, the policy is again what it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def as_float32(model: keras.Model) -> keras.Model:
    """The same network with the same weights and names, computing in float32; not compiled.

    Scores, the saved model and the service are float32, so that they agree wherever they are computed. The copy has
    no optimizer, whose memory would treble the saved file.

    Args:
        model: functional or sequential, built under any policy; it is left as it is.
    """
    copy = type(model).from_config(_as_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _as_float32(config: object) -> object:
    """A layer's configuration, nested as it may be, with float32 for every policy and inferred input, uncompiled."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return config | {"config": {"name": "float32"}}
        return {key: _as_float32(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, list | tuple):
        return type(config)(map(_as_float32, config))
    return "float32" if config in ("bfloat16", "float16") else config
