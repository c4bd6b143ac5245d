"""Signals that end a run: what a terminal, a scheduler or a closed connection sends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
