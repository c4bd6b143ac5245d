"""Settings as they stand in ``conf/``, for callers from Python: the same files that Hydra composes for ``train.py``.

    settings.compose(model="l2q_anl", epochs=20)["quantizer"]
    settings.preset("model/l2q_plus")["descent"]

A file's first line may say where its keys stand (``# @package _global_``: at the top, not below the name of its group),
and its ``defaults`` may name other files and override the choice of other groups. That is all of Hydra's language that
the files of ``conf/`` use, apart from what belongs to the command line.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from l2q.errors import L2QError
from l2q.options import number

GROUPS = (
    "objective",
    "annealing",
    "protocol",
    "model",
    "trainer",
)  # in the order of conf/config.yaml; later ones win
COMMAND_LINE = ("hydra", "launcher", "search", "sweep", "print_config")  # of what is run, not of what it is


@cache
def folder() -> Path:
    """``conf/``: inside an installed package, beside ``src`` in a clone."""
    inside = Path(__file__).with_name("conf")
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def choices(group: str) -> list[str]:
    """The names of a group: ``choices("model")`` has ``l2q_plus``."""
    return sorted(path.stem for path in (folder() / group).glob("*.yaml"))


def preset(name: str) -> dict[str, Any]:
    """The values of one file, without what its ``defaults`` bring: ``preset("model/l2q_plus")``."""
    group, _, word = name.partition("/")
    values, _, package = _read(group, word)
    return values[group] if package == "_global_" else values


def defaults() -> dict[str, Any]:
    """The values of ``config.yaml`` alone."""
    return _read("", "config")[0]


def compose(changes: Mapping[str, Any] | None = None, **chosen: str) -> dict[str, Any]:
    """The whole configuration of a run without a data set, its tracker and its folder: that of ``config.yaml`` and of
    every group's file, ``chosen`` by name (``model="lightgcn"``), with ``changes`` merged into it.

    Raises L2QError for a name that a group does not have, and for a change of what there is not.

        compose({"epochs": 20, "model": {"num_layers": 3}}, model="l2q_anl")
    """
    first, entries, _ = _read("", "config")
    names = {key: value for entry in entries if isinstance(entry, dict) for key, value in entry.items()}
    names |= chosen
    for group in GROUPS:  # a file may choose for other groups, as l2q_anl does; the caller has the last word
        for key, value in _entries(_read(group, names[group])[1]):
            if key.startswith("override "):
                other = key.removeprefix("override ").lstrip("/")
                names[other] = chosen.get(other, value)
    merged: Any = OmegaConf.create(first)
    for group in GROUPS:
        for values in _with_parts(group, names[group], group, chosen):
            merged = OmegaConf.merge(merged, values)
    for key in changes or {}:
        if key not in merged:
            raise L2QError(f"{key}: there is no such option; there are {', '.join(sorted(merged))}")
    config = OmegaConf.merge(merged, OmegaConf.create(_plain(changes or {})))
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def build(values: Mapping[str, Any], group: str, /, **more: Any) -> Any:
    """The object that ``_target_`` names, made of the other values and ``more``; values that name a class themselves
    first. ``group`` is what the command line calls the options.

    Raises L2QError where there is no such class, or where it takes no such option.
    """
    made = locate(values["_target_"])
    arguments = {key: value for key, value in values.items() if key != "_target_"}
    known = inspect.signature(made).parameters
    if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in known.values()):
        for key in arguments:
            if key not in known:
                near = get_close_matches(key, list(known), 1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise L2QError(f"{group}.{key}: there is no such option; {meant}")
    for key, value in arguments.items():
        if isinstance(value, Mapping) and "_target_" in value:
            arguments[key] = build(value, f"{group}.{key}")
    return made(**arguments, **more)


def locate(target: str) -> Any:
    """A class or function by its dotted name."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise L2QError(f"_target_={target} cannot be found: {error}") from error


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested groups as dictionaries, numbers of NumPy's as Python's."""
    return {
        key: _plain(value) if isinstance(value, Mapping) else number(value) for key, value in values.items()
    }


def _read(group: str, name: str) -> tuple[dict[str, Any], list[Any], str | None]:
    """A file's values, its ``defaults``, and the package that its first line names."""
    path = folder() / group / f"{name}.yaml"
    if not path.is_file():
        raise L2QError(f"{group}={name} is unknown; use {', '.join(choices(group))}")
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    # of the command line: how runs are started, not what they are
    for own in COMMAND_LINE:
        values.pop(own, None)
    package = re.match(r"# @package (\S+)", path.read_text("utf-8"))
    return values, values.pop("defaults", []), package[1] if package else None


def _entries(defaults: list[Any]) -> list[tuple[str, str]]:
    """The ``group: name`` of a file's defaults, in order."""
    return [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]


def _with_parts(group: str, name: str, package: str, chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """A file's values at the place of its package, behind those of the files that it builds on."""
    values, defaults, own = _read(group, name)
    package = "" if own == "_global_" else own or package
    found = []
    for entry in defaults:
        if isinstance(entry, str) and entry != "_self_":
            found += _with_parts(group, entry, package, chosen)
        for key, value in entry.items() if isinstance(entry, dict) else ():
            if not key.startswith("override "):
                other, _, inner = key.lstrip("/").partition("@")
                place = ".".join(filter(None, [package, inner or other]))
                found += _with_parts(other, value if inner else chosen.get(other, value), place, chosen)
    for part in reversed(package.split(".") if package else []):
        values = {part: values}
    return [*found, values]
