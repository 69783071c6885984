"""Tables of settings (TOML, JSON) read into frozen dataclasses, strictly, and written out again."""

import dataclasses
import difflib
import json
import math
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")


def read_table(path: Path, overrides: Sequence[str] = (), *, only_overrides: bool = False) -> dict[str, Any]:
    """Read a TOML file as nested tables with ``section.key=value`` overrides in them, or the overrides alone.

    Raises:
        ConfigError: the file is missing or is not TOML, or an override is of another form.
    """
    table: dict[str, Any] = {}
    try:
        if not only_overrides:
            table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error.strerror}); check its path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"The configuration {path} is not TOML: {error}.") from error
    for override in overrides:
        _override(table, override)
    return table


def read_dataclass(kind: type[T], value: object, where: str = "") -> T:
    """Build a dataclass, and those inside it, from nested tables.

    Args:
        kind: the dataclass; its annotations may be bool, int, float, str, dict, tuples, and dataclasses.
        value: the table.
        where: the table's own name, for messages.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named) or missing, or a value is of the wrong kind.
    """
    made: T = _read_dataclass(kind, value, where)
    return made


def write_toml(settings: object) -> str:
    """Return a dataclass, and those inside it, as TOML, defaults included."""
    return _write_table(dataclasses.asdict(typing.cast("Any", settings)), ())


def _override(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {override!r} is not of the form section.key=value, such as optim.lr=0.001.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r} goes into {key!r}, which is a value and not a section.")
    table[keys[-1]] = value


def _read(kind: object, value: object, where: str) -> Any:  # noqa: ANN401 - of the kind that is asked for
    """Return a TOML value as the annotated kind, or raise ConfigError with the key's full name."""
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast("type", kind), value, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and isinstance(value, dict):
        return dict(value)
    if origin is tuple and isinstance(value, list | tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(args) == len(value):
            return tuple(
                _read(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
            )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise ConfigError(f"{where} is {value!r}; it must be {_describe(kind)}.")


def _read_dataclass(kind: type, value: object, where: str) -> Any:  # noqa: ANN401 - of the kind that is asked for
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; it must be a table of settings.")
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.5)
            fix = f"did you mean {prefix}{near[0]}?" if near else f"known here are: {', '.join(hints)}."
            raise ConfigError(f"There is no setting {prefix}{key}; {fix}")
    for spec in dataclasses.fields(kind):
        needed = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if needed and spec.name not in value:
            raise ConfigError(f"The setting {prefix}{spec.name} is missing; it has no default.")
    return kind(**{key: _read(hints[key], item, f"{prefix}{key}") for key, item in value.items()})


def _describe(kind: object) -> str:
    names = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    if kind in names:
        return names[kind]
    args = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
    if typing.get_origin(kind) is tuple:
        inner = "tables" if dataclasses.is_dataclass(args[0]) else _describe(args[0])
        count = "" if typing.get_args(kind)[-1] is Ellipsis else f" of {len(args)}"
        return f"a list{count} (each: {inner})"
    return "a table"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...]) -> str:
    lines = [f"[{'.'.join(_key(part) for part in path)}]"] if path else []
    lines += [f"{_key(key)} = {_value(item)}" for key, item in table.items() if not isinstance(item, Mapping)]
    head = "\n".join(lines) + "\n" if len(lines) > (1 if path else 0) or path else ""
    tables = [_write_table(item, (*path, key)) for key, item in table.items() if isinstance(item, Mapping)]
    return "\n".join(part for part in (head, *tables) if part)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def at_least(name: str, value: float, low: float) -> None:
    """Raise ConfigError where a setting is below ``low``."""
    if not value >= low:
        raise ConfigError(f"{name} is {value}; it must be {low} or more.")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError where a setting is below ``low`` or above ``high``."""
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must lie between {low} and {high}.")


def positive(name: str, value: float) -> None:
    """Raise ConfigError where a setting is not above 0, or has no end."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be above 0{' and finite' if value > 0 else ''}.")


def probability(name: str, value: float) -> None:
    """Raise ConfigError where a setting is no probability."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}; a probability lies between 0 and 1.")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError where a setting is none of the words allowed."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; it must be one of: {', '.join(allowed)}.")
