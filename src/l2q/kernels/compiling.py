"""Says when Numba compiles kernels, and how long it took: the first run on a machine, and after an upgrade."""

from __future__ import annotations

import time
from collections.abc import Callable

from numba.core import event


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
