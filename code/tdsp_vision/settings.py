"""Settings of a walkthrough: values from the command line or a YAML file, typed by a notebook's own defaults.

A setting is a parameter name and a value: text (command line) or a YAML value (file). The type of the
notebook's default is the type of the parameter; the first element of a list, or the first value of a dict,
says what every element is. Everything wrong raises `ParameterError` with one sentence.
"""

import re
from pathlib import Path

import yaml

from tdsp_vision.parameters import WORDS, Parameter, ParameterError, is_a, short

CLASSIFIERS = ("svm", "dnn")  # what the parameter CLASSIFIER may be
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def read_settings(file: Path) -> dict[str, object]:
    """Settings in a YAML file that maps parameter names to values; an empty file holds none.

    Raises:
        ParameterError: if the file cannot be read, is not YAML, is not such a mapping, or has a name twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise ParameterError(f"{file} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParameterError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from None
    if content is None:
        return {}
    if not is_a(dict, content):
        raise ParameterError(f"{file} holds {short(content)}; it has to map names to values, as in `EPOCHS: 3`.")
    names = [key.value for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"{file} sets {name} {names.count(name)} times; set it once.")
    return content


def typed(parameter: Parameter, value: object) -> bool | int | float | str | list | dict:
    """`value`, text from the command line or a value from a YAML file, as the type of `parameter.default`.

    Text for a str parameter is taken as it is (`0000013` stays text). Text for a list or dict is YAML; its
    elements are typed like the first element of the default, an empty default takes literals of any type.
    NaN and infinity are refused.

    Raises:
        ParameterError: names the parameter, the value, the type expected and, as an example, the default.
    """
    try:
        return _converted(parameter.default, value)
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError):
        quote = " (in a YAML file: put text in quotes)" if _innermost(parameter.default) is str else ""
        raise ParameterError(
            f"{parameter.name} is {short(value)}; expected {_expected(parameter.default)}{quote}, "
            f"such as {parameter.default!r}."
        ) from None


def _converted(default: object, value: object) -> object:
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        value = _read(default, value)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is bool and type(value) is int and value in (0, 1):
        value = bool(value)
    if not is_a(kind, value):
        raise ValueError
    if kind is list:
        return [_converted(default[0], item) if default else _any_literal(item) for item in value]
    if kind is dict:
        example = next(iter(default.values())) if default else None
        return {k: _converted(example, item) if default else _any_literal(item) for k, item in value.items()}
    return value


def _read(default: object, text: str) -> object:
    """`text` as the type of `default`; elements stay text where the default says what they are."""
    if isinstance(default, bool):
        if text.strip().lower() not in _TRUE + _FALSE:
            raise ValueError
        return text.strip().lower() in _TRUE
    if isinstance(default, int):
        if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
            raise ValueError
        return int(text)
    if isinstance(default, float):
        return float(text)
    # YAML 1.1 reads 1e-4 as text, 0013 as 11 and `no` as False; the base loader leaves all of them as text.
    return yaml.load(text, Loader=yaml.BaseLoader if _innermost(default) else yaml.SafeLoader)


def _any_literal(value: object) -> object:
    if isinstance(value, list):
        return [_any_literal(item) for item in value]
    if isinstance(value, dict):
        return _converted({}, value)
    if value is None or is_a(type(value), value):
        return value
    raise ValueError


def _innermost(default: object) -> type | None:
    """Type of the first scalar inside `default`; None where a list or dict on the way is empty."""
    while isinstance(default, list | dict):
        if not default:
            return None
        default = default[0] if isinstance(default, list) else next(iter(default.values()))
    return type(default)


def _expected(default: object) -> str:
    words = WORDS[type(default)]
    if isinstance(default, list | dict) and default:
        first = default[0] if isinstance(default, list) else next(iter(default.values()))
        return f"{words} (of each: {_expected(first)})"
    return words
