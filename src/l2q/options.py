"""How options are declared and checked: their types and ranges stand in the signature of the class that takes them.

    @options("descent")
    class CoordinateDescent:
        rounds: Annotated[int, Ge(1)]

    CoordinateDescent(rounds=0)   # L2QError: descent.rounds=0 must be a whole number of at least 1

Values stand in ``conf/`` alone. Pydantic does the checking, for callers from Python and from Hydra alike.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, ValidationError, validate_call
from pydantic_core import PydanticCustomError, core_schema

from l2q.errors import L2QError

Whole = Annotated[int, Ge(0)]
"""A whole number of at least 0."""
Count = Annotated[int, Ge(1)]
"""A whole number of at least 1."""
Positive = Annotated[float, Gt(0), Lt(float("inf"))]
"""A finite number above 0."""
NotNegative = Annotated[float, Ge(0), Lt(float("inf"))]
"""A finite number of at least 0."""
Share = Annotated[float, Gt(0), Lt(1)]
"""A number between 0 and 1."""

FilePath = Annotated[str, "the path of a file"]
"""A word that is one."""


@dataclasses.dataclass(frozen=True, eq=False)  # by identity: a registry has no hash
class OneOf:
    """A word of ``words``, which may be a registry that grows: ``Annotated[str, OneOf(CURVES)]``."""

    words: Collection[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, word: str) -> str:
        if word not in self.words:
            raise PydanticCustomError("unknown", "unknown")
        return word


_CONFIG = ConfigDict(arbitrary_types_allowed=True, strict=True)
T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def options(group: str) -> Callable[[type[T]], type[T]]:
    """Makes a class a frozen dataclass whose fields are checked when it is made; ``group`` is what the command line
    calls it. A field that is such a class takes a mapping of its fields too."""

    def decorate(cls: type[T]) -> type[T]:
        made = pydantic.dataclasses.dataclass(cls, frozen=True, config=_CONFIG | ConfigDict(extra="forbid"))
        made.__init__ = _reporting(made.__init__, group, made)  # type: ignore[method-assign]
        return made  # type: ignore[return-value]

    return decorate


def checked(group: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """The same for the arguments of a function, such as the constructor of a module."""

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        return functools.wraps(function)(_reporting(validate_call(config=_CONFIG)(function), group, function))

    return decorate


def _reporting(call: Callable[..., Any], group: str, owner: Any) -> Callable[..., Any]:
    @functools.wraps(call)
    def reporting(*arguments: Any, **named: Any) -> Any:
        kinds = _kinds(owner)
        own = arguments[: inspect.isclass(owner)]  # self, which is no field
        by_position = list(zip(kinds, arguments[len(own) :], strict=False))
        given = dict(by_position) | named
        for name, value in given.items():
            given[name] = value = number(value)
            kind = _plain(kinds.get(name))
            if isinstance(value, Mapping) and dataclasses.is_dataclass(kind):
                given[name] = kind(**value)  # type: ignore[operator]
        rest = arguments[len(own) + len(by_position) :]
        try:
            return call(
                *own,
                *(given[name] for name, _ in by_position),
                *rest,
                **{name: given[name] for name in named},
            )
        except ValidationError as error:
            raise L2QError(_message(error, group, kinds, given)) from None

    return reporting


def number(value: Any) -> Any:
    """A number of NumPy's as Python's; everything else as it is."""
    return value.item() if type(value).__module__ == "numpy" and not getattr(value, "ndim", 1) else value


def _message(error: ValidationError, group: str, kinds: dict[str, Any], given: dict[str, Any]) -> str:
    """One line about the first error; a name that nothing takes comes first."""
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"].startswith("unexpected")), found[0])
    name = first["loc"][0] if first["loc"] else ""
    known = [name for name in kinds if name != "self"]
    if first["type"] == "unexpected_positional_argument":
        return f"{group}: too many values by position; there are {', '.join(known)}"
    if isinstance(name, int):  # an argument by position
        name = list(kinds)[name]
    option = f"{group}.{name}" if group else str(name)
    if first["type"].startswith("unexpected"):
        near = get_close_matches(name, known, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return f"{option}: there is no such option; {meant}"
    if first["type"].startswith("missing"):
        return f"{option} is not given; it must be {rule(kinds[name])}"
    if first["type"] == "value_error":  # of a check of the class's own
        return str(first["ctx"]["error"])
    return f"{option}={given.get(name, first['input'])} must be {rule(kinds[name])}"


@functools.cache  # evaluated at every call, they would be kept by typing's own caches, call by call
def _kinds(owner: Any) -> dict[str, Any]:
    """The declared types by name, of a class's fields or of a function's parameters."""
    if inspect.isclass(owner):
        hints = typing.get_type_hints(owner, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(owner)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(owner, include_extras=True)
    return {name: hints.get(name, Any) for name in inspect.signature(owner).parameters}


def _plain(annotation: Any) -> Any:
    """The class in ``Class | None`` or ``Annotated[Class, ...]``."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else annotation
    return annotation


def rule(annotation: Any) -> str:
    """What a declared type asks for, in words: "a whole number of at least 1"."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated and isinstance(parts[1], OneOf):
        return "one of " + ", ".join(parts[1].words)
    if origin is Annotated and isinstance(parts[1], str):  # said as it stands
        return parts[1]
    if origin is Annotated:
        return " ".join(filter(None, [rule(parts[0]), _range(parts[1:])]))
    if origin is Literal:
        return ("one of " if len(parts) > 1 else "") + ", ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        parts = tuple(sorted(parts, key=lambda part: part is type(None)))
        parts = tuple(part for part in parts if part is not str or pathlib.Path not in parts)
        return " or ".join("null" if part is type(None) else rule(part) for part in parts)
    if inspect.isclass(origin) and issubclass(origin, (list, tuple, typing.Sequence)):  # type: ignore[arg-type]
        return f"a list, each {rule(parts[0])}" if parts else "a list"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a group of options"
    if dataclasses.is_dataclass(annotation):
        return "a group of options"
    known = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    known[pathlib.Path] = "the path of a file or folder"
    return known.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _range(bounds: tuple[Any, ...]) -> str:
    words = {Ge: "of at least {ge}", Gt: "above {gt}", Le: "of at most {le}", Lt: "below {lt}"}
    limits = [bound for bound in bounds if type(bound) in words]
    shown = [
        words[type(bound)].format(**dataclasses.asdict(bound))
        for bound in limits
        if list(dataclasses.asdict(bound).values()) != [float("inf")]
    ]
    return " and ".join(shown).replace("and of", "and")
