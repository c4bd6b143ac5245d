"""Signals that end a run: what a terminal, a scheduler or a closed connection sends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Interrupted(BaseException):
    """A signal arrived; no error of the run's. ``code`` is what a shell expects: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # its only argument, so that it can be sent from process to process
        self.number = number
        self.code = 128 + number

    def __str__(self) -> str:
        return signal.Signals(self.number).name


_handlers: list[Callable[[int, FrameType | None], None]] = []  # of the contexts that are open
# conditions under which a first signal waits, and the one that waits
_holds: list[Callable[[], bool]] = []
_waiting: list[int] = []
_left: list[int] = []  # the signal by which a context is being left


@contextmanager
def held(while_: Callable[[], bool]) -> Iterator[None]:
    """Within it, a first signal that arrives ``while_()`` is true waits for ``release``; a second one does not."""
    _holds.append(while_)
    try:
        yield
    finally:
        _holds.remove(while_)


def take_back() -> None:
    """Puts the handler of the innermost ``interruptible`` in its place again. Lightning puts one of its own before it
    when a fit begins, and would end the process with code 0 in the middle of an epoch that SIGTERM waits for."""
    if _handlers and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _handlers[-1])


def waiting() -> bool:
    """Whether a signal waits."""
    return bool(_waiting)


def release() -> None:
    """Raises ``Interrupted`` where a signal waits."""
    if _waiting:
        _left.append(_waiting.pop())
        raise Interrupted(_left[0])


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, each of ``SIGNALS`` raises ``Interrupted`` where the program stands, once: while the run is being left
    others of them are ignored. In a thread other than the main one nothing changes, since signals never arrive there.

    Files are replaced in one step (``l2q.files``), so what is on disk is whole wherever it stood.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        if _left:
            return
        if not _waiting and any(hold() for hold in _holds):
            _waiting.append(number)
            return
        _waiting.clear()
        _left.append(number)
        raise Interrupted(number)

    def again(number: int) -> None:
        _left.clear()
        os.kill(os.getpid(), number)

    def lost(told: sys.UnraisableHookArgs) -> None:
        # raised within __del__ or what native code has called, where it ends: the signal once more, a moment later
        if isinstance(told.exc_value, Interrupted):
            threading.Timer(0.05, again, [told.exc_value.number]).start()
        else:
            show(told)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    show, sys.unraisablehook = sys.unraisablehook, lost
    _handlers.append(leave)
    try:
        yield
    finally:
        _handlers.remove(leave)
        sys.unraisablehook = show
        _waiting.clear()
        _left.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unhidden() -> Iterator[None]:
    """Within it, inside of ``interruptible``, an error that native code has put in the place of ``Interrupted``, as
    DuckDB does, is that again."""
    try:
        yield
    except Exception as error:
        if _left:
            raise Interrupted(_left[0]) from error
        raise


@contextmanager
def ignored() -> Iterator[list[int]]:
    """Within it, none of ``SIGNALS`` ends the process; those that arrive are kept."""
    arrived: list[int] = []

    def stay(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, stay) for number in SIGNALS}
    _handlers.append(stay)
    try:
        yield arrived
    finally:
        _handlers.remove(stay)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def piped() -> Iterator[None]:
    """Within it, output that nobody reads any more, as behind ``| head -1``, raises ``Interrupted`` by SIGPIPE; what is
    printed later goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Rich makes the one an exit with code 1
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise Interrupted(signal.SIGPIPE) from None
