"""How kernels are compiled and where they are kept, and when they are compiled and how long it took.

Numba keeps what it compiled in ``__pycache__`` beside the source or, where that cannot be written, below the home
folder. Where neither can be, kernels are kept in ``$L2Q_CACHE/numba``, or in a folder of the user's own in TMPDIR, or
compiled anew by every process. What is kept is never a reason to fail: what cannot be read is compiled, what cannot be
written is not kept.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config, event
from numba.core.caching import FunctionCache


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, whose ``cache`` never fails."""
    kept = options.pop("cache", False)

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(**options)(function)
        if kept and (found := _cache_of(function)) is not None:
            compiled._cache = found
        return compiled

    return decorate


class _Cache(FunctionCache):
    """Numba's, without its errors."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # half a file, of a process that was killed or a disk that was full
            self._forget()
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except Exception as error:
            self._forget()
            reason = getattr(error, "strerror", None) or type(error).__name__
            _say(f"compiled kernels cannot be kept in {self.cache_path} ({reason})")

    def _forget(self) -> None:
        try:
            self.flush()
        except Exception:
            self.disable()


def _cache_of(function: Callable[..., Any]) -> FunctionCache | None:
    try:
        return _Cache(function)
    except (RuntimeError, OSError):  # there is no place
        pass
    for place in _other_places():
        config.CACHE_DIR = str(place)  # type: ignore[attr-defined]
        try:
            found = _Cache(function)
        except (RuntimeError, OSError):
            continue
        _say(
            f"compiled kernels are kept in {place}, since neither the package nor the home folder can be written"
        )
        return found
    _say(
        "compiled kernels cannot be kept, and every process compiles them anew; set L2Q_CACHE to a folder for them"
    )
    return None


def _other_places() -> Iterator[Path]:
    if os.environ.get("L2Q_CACHE"):
        yield Path(os.environ["L2Q_CACHE"]) / "numba"
    try:
        place = Path(tempfile.gettempdir()) / f"l2q-numba-{os.getuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except (OSError, AttributeError):
        return
    # code is run from it: nobody else may have made it or write to it
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        yield place


@cache
def _say(what: str) -> None:
    """Once a process."""
    warnings.warn(what, stacklevel=2)


class Compiling(event.Listener):
    """Counts the seconds of compiling; calls ``say`` when the first kernel is about to be compiled. What is found in
    Numba's cache is not compiled."""

    def __init__(self, say: Callable[[], None] | None = None) -> None:
        self.say = say
        self.seconds = 0.0
        self.depth = 0  # kernels that call each other are compiled within each other
        self.began = 0.0

    def on_start(self, event: event.Event) -> None:
        if self.say is not None:
            self.say()
            self.say = None
        if self.depth == 0:
            self.began = time.perf_counter()
        self.depth += 1

    def on_end(self, event: event.Event) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began


_LISTENER = Compiling()
event.register("numba:compile", _LISTENER)


def seconds() -> float:
    """Of compiling in this process since this module was imported."""
    return _LISTENER.seconds


def tell(say: Callable[[], None]) -> None:
    """``say()`` is called when the next kernel is about to be compiled, once."""
    _LISTENER.say = say
