"""What an option may be in a search: a range or one of several choices, and how that stands on a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from l2q.errors import L2QError
from l2q.options import checked

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Range:
    """``low`` to ``high``, both included; evenly over the logarithm with ``log``; every ``step``. ``whole`` where both
    ends are whole numbers. Others are taken to four digits, so that commands and folders can be read."""

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def draw(self, trial: Trial, name: str) -> None:
        """Draws a value, where the trial has none yet."""
        if self.whole:
            trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        else:
            trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def value(self, drawn: float) -> float:
        """What a job gets."""
        short = drawn if self.whole or self.step else float(f"{drawn:.4g}")
        return short if self.low <= short <= self.high else drawn


@dataclass(frozen=True)
class Choice:
    """One of ``words``, as they stand on the command line."""

    words: tuple[str, ...]

    def draw(self, trial: Trial, name: str) -> None:
        """Draws a value, where the trial has none yet."""
        trial.suggest_categorical(name, self.words)

    def value(self, drawn: str) -> str:
        """What a job gets."""
        return drawn


def read(space: Mapping[str, Any], before: str = "") -> dict[str, Range | Choice]:
    """``search.space`` by option. Raises L2QError for what is no range and no list of choices.

    ``read({"model": {"num_layers": {"low": 1, "high": 3}}})`` has ``model.num_layers``.
    """
    found: dict[str, Range | Choice] = {}
    for key, value in space.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and not {"low", "high"} & value.keys():
            found |= read(value, f"{name}.")
        elif isinstance(value, Mapping):
            found[name] = checked(f"search.space.{name}")(_range)(**value, name=name)
        elif isinstance(value, list) and len({spelled(one) for one in value}) > 1:
            found[name] = Choice(tuple(dict.fromkeys(spelled(one) for one in value)))
        else:
            raise L2QError(
                f"search.space.{name}={value} must be {{low: .., high: ..}} or a list of at least two choices"
            )
    if not found and not before:
        raise L2QError("search.space is empty; name an option in it, as conf/hparams_search/*.yaml do")
    if "test" in found:
        raise L2QError("search.space.test: a search leaves test unread; leave it out")
    return found


def _range(
    low: int | float, high: int | float, log: bool = False, step: int | float | None = None, *, name: str
) -> Range:
    whole = all(isinstance(value, int) for value in (low, high, 1 if step is None else step))
    least = "low above 0 and below high" if log else "low below high"
    if not low < high or (log and low <= 0):
        raise L2QError(f"search.space.{name}: low={low}, high={high} must be a range: {least}")
    if step is not None and (log or not 0 < step <= high - low):
        raise L2QError(f"search.space.{name}.step={step} must be above 0, within the range, and without log")
    return Range(low, high, log, step, whole)


def spelled(value: Any) -> str:
    """A value as Hydra's grammar takes it on the command line: ``null``, ``[1,0.5]``, ``'two words'``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{spelled(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelled, value)) + "]"
    if not isinstance(value, str) or re.fullmatch(
        r"(?!(null|true|false|nan|inf)$)[a-z][\w./-]*", value, re.I
    ):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
