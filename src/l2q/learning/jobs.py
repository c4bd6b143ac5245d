"""A job: one configuration in one folder, with a state that outlives its process.

``status.json`` in the folder says how far it is: waiting, running, done, pruned, failed or interrupted, and why. The
same job again in the same folder is not run twice: what is done is taken as it is, what was broken off goes on from its
last whole epoch or the last part of its fit, what failed is tried again. While it runs, a lock keeps a second process
out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from l2q.errors import L2QError, lacking, printable
from l2q.events.databases import database_of
from l2q.files import read_json, read_sealed, replaced_file
from l2q.learning.configuration import NO_FIGURES, flat
from l2q.learning.signals import Interrupted, interruptible, piped, unhidden

if TYPE_CHECKING:
    from l2q.learning.leftovers import Before

STATUS, LOCK, LOG = "status.json", "run.lock", "train.log"
log = logging.getLogger("l2q")


class Taken(L2QError):
    """The folder holds something else, which stays as it is."""


class Pruned(Exception):
    """A search gives this job up, for a reason; no error of the job. ``code`` is its exit code for a tracker."""

    code = 0


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``state`` is done, pruned, failed, interrupted or busy. ``metrics`` of a done one are those of
    ``metrics.json``; ``reused`` where they were there before. ``code`` is the exit code of a process that did it."""

    state: str
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    reused: bool = False
    code: int = 0


@dataclass(frozen=True)
class Job:
    """``config``: plain values as ``conf/`` composes them. ``command``: what gives the job's figures again, for its
    metrics; ``name`` and ``group``: what the tracker calls it and its sweep. ``watch`` is told every validation, by
    epoch and metrics, and may answer with a reason to give the job up, which is then ``pruned`` and not run again.
    ``before``: what stood in the folder, which a job that is refused leaves as it was; without it, the job's
    ``status.json`` keeps the reason."""

    config: dict[str, Any]
    folder: Path
    command: str = ""
    name: str = "run"
    group: str | None = None
    watch: Callable[[int, Mapping[str, float]], str | None] | None = field(default=None, compare=False)
    before: Before | None = field(default=None, compare=False)

    @property
    def options(self) -> dict[str, Any]:
        """What makes it this job: all of its configuration but who is told, how much memory a search takes, and that
        it is gone on with."""
        parts = {key: value for key, value in flat(self.config).items() if key != "ckpt_path"}
        with suppress(L2QError):  # a malformed address is refused by who reads it
            if (address := database_of(parts.get("dataset.dir"))) is not None:
                parts["dataset.dir"] = address.shown  # without a password
        return {key: value for key, value in parts.items() if not key.startswith(NO_FIGURES)}

    @property
    def identity(self) -> str:
        """16 hexadecimal digits of ``options``."""
        said = json.dumps(self.options, sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def status(self) -> dict[str, Any]:
        """What ``status.json`` holds; nothing where there is none, or a damaged one."""
        return read_status(self.folder)

    def wait(self) -> None:
        """Says that the job is going to be run, where nothing is known of it yet."""
        if not self.status():
            with suppress(OSError):  # the attempt says what is wrong with the place
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write("waiting")

    def attempt(self, wait: bool = False) -> Outcome:
        """Does the job, or takes what is done. Every end is an outcome: nothing is raised but by a bug. A job that
        another process is at is ``busy``; with ``wait`` it is taken when that has ended. What the machine lacks, memory
        or room for files, fails a job as what is wrong with it does."""
        try:
            return self._alone(wait)
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.folder)
            if (lack := lacking(error)) is None:
                raise
            return Outcome("failed", reason=lack, code=2)

    def _alone(self, wait: bool) -> Outcome:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            known = self.status()
            where = f"process {known.get('process')} on {known.get('host')}"
            reason = f"{self.folder} is in use by {where}; wait, or give another folder"
            return Outcome("busy", reason=reason, code=2)
        try:
            with logged(self.folder), interruptible():
                outcome = self._attempt()
        except Interrupted as signal:  # between two steps of its own
            outcome = self._ended("interrupted", str(signal), signal.code)
        else:
            if self.before and outcome.state == "failed":
                self.before.restore()
        finally:
            lock.release()
        return outcome

    def _attempt(self) -> Outcome:
        from l2q.learning.run import Run  # brings torch along

        try:
            known = self.status()
            if self.watch and (known.get("state"), known.get("identity")) == ("pruned", self.identity):
                return Outcome("pruned", reason=str(known.get("reason")), reused=True)
            config = self._resumed()
            if config is None:
                metrics = _metrics(self.folder / "metrics.json")
                log.info(f"{self.name}: done already, in {self.folder}")
                return Outcome("done", metrics, reused=True)
            self._write("running")
            with unhidden(), piped():
                # a copy: what a run settles is not what the job was asked for
                metrics = Run(
                    deepcopy(config),
                    self.folder,
                    command=self.command,
                    name=self.name,
                    group=self.group,
                    watch=self.watch,
                )()
        except Taken as error:
            return Outcome("failed", reason=str(error), code=2)
        except Pruned as reason:
            return self._ended("pruned", str(reason), 0)
        except L2QError as error:
            logging.getLogger("l2q.file").error(error)
            return self._ended("failed", str(error), 2)
        except Interrupted as signal:
            return self._ended("interrupted", str(signal), signal.code)
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.folder)
            if (lack := lacking(error)) is None:
                self._write("failed", f"{type(error).__name__}: {error}")
                raise
            logging.getLogger("l2q.file").exception(lack)  # where in the code stands in the file
            return self._ended("failed", lack, 2)
        except BaseException as error:
            self._write("failed", f"{type(error).__name__}: {error}")
            raise
        self._write("done")
        return Outcome("done", metrics)

    def _resumed(self) -> dict[str, Any] | None:
        """The configuration to run, from the last whole epoch where there is one; None where the job is done.

        Raises L2QError where the folder holds something else.
        """
        if self.config.get("ckpt_path"):  # whoever names a checkpoint knows the folder
            return self.config
        known = self.status()
        if not known and any((self.folder / name).exists() for name in ("config.json", "metrics.json")):
            raise Taken(f"{self.folder} holds an earlier run; give another folder, or remove it")
        if known.get("state", "waiting") == "waiting":
            return self.config
        if known.get("identity") != self.identity:
            raise Taken(
                f"{self.folder} holds a run with other options: {changed(known.get('options'), self.options)}; "
                "give the options that it has, or another folder, or remove it"
            )
        if known["state"] == "done" and (self.folder / "metrics.json").is_file():
            return None
        last = self.folder / "checkpoints" / "last.ckpt"
        if not last.is_file() or not self.config["fit"]:
            return self.config
        log.info(f"{self.name}: goes on from the last whole epoch in {last}")
        return self.config | {"ckpt_path": str(last)}

    def _ended(self, state: str, reason: str, code: int) -> Outcome:
        # what is done stays so, and a folder that holds another job stays that job's
        known = self.status()
        if known.get("identity", self.identity) == self.identity and known.get("state") != "done":
            with suppress(OSError):  # what ended the job counts
                self._write(state, reason)
        return Outcome(state, reason=reason, code=code)

    def _write(self, state: str, reason: str = "") -> None:
        values = {
            "state": state,
            "reason": reason,
            "identity": self.identity,
            "options": self.options,
            "name": self.name,
            "process": os.getpid(),
            "host": platform.node(),
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with replaced_file(self.folder / STATUS) as fresh:
            fresh.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def _metrics(path: Path) -> dict[str, Any]:
    try:
        found = read_sealed(path)
    except (OSError, ValueError) as error:
        raise L2QError(f"{path} is damaged ({error}); remove it, and the run is done again") from error
    if not isinstance(found, dict):
        raise L2QError(f"{path} is damaged: it holds no values by name; remove it, and the run is done again")
    return found


def read_status(folder: Path) -> dict[str, Any]:
    """What ``status.json`` of a job's folder holds; nothing where there is none, or a damaged one."""
    try:
        found = read_json(folder / STATUS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


SHOWN = 6  # options, where many differ


def changed(before: Any, after: Mapping[str, Any]) -> str:
    """Which options differ, from what to what: the model and the set first.

    ``changed({"seed": 0}, {"seed": 1})`` is ``seed=0 became seed=1``.
    """
    before = before if isinstance(before, dict) else {}
    absent = object()
    keys = [
        key
        for key in {**after, **before}
        if _plain(before.get(key, absent)) != _plain(after.get(key, absent))
    ]
    keys.sort(key=lambda key: key not in ("model.name", "dataset.name"))
    said = [f"{_said(before, key)} became {_said(after, key)}" for key in keys[:SHOWN]]
    more = len(keys) - len(said)
    return ", ".join(said) + (f", and {more} more" if more else "")


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _said(options: Mapping[str, Any], key: str) -> str:
    if key not in options:
        return f"no {key}"
    value = options[key]
    return f"{key}={value if isinstance(value, str) else _plain(value)}"


def folder_name(overrides: Mapping[str, Any], identity: str) -> str:
    """A folder for a job: what is swept, for people, and the start of its identity, which alone tells it from others.

    ``folder_name({"model": "l2q", "seed": 0}, "5f3a...")`` is ``model=l2q,seed=0-5f3a1c2b``. Values are cut where all
    of it would be over 150 bytes, then keys to their last word, then the end.
    """
    pairs = [(key, str(value).replace(os.sep, "_")) for key, value in overrides.items()]
    for width in (80, 24, 12, 6):
        words = [f"{key if width > 12 else key.rpartition('.')[2]}={value[-width:]}" for key, value in pairs]
        said = ",".join(words)
        if len(said.encode()) <= 150:
            break
    said = said.encode()[:150].decode(errors="ignore")
    return "-".join(filter(None, [said, identity[:8]]))


class _Screen(logging.Handler):
    """Lines through the console that also has the bars (``l2q.progress``), so that neither tears the other."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich import get_console

        console, said = get_console(), printable(self.format(record))
        if getattr(record, "hanging", False):  # of several in a row, each keeps its words together
            said = textwrap.fill(said, console.width, subsequent_indent="  ", break_on_hyphens=False)
        console.print(said, markup=False, highlight=False, emoji=False, soft_wrap=True)


class _File(logging.FileHandler):
    """``train.log``, whose disk may be full; a run is not failed by what it says."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """What a run says goes to the screen, above a bar that is shown there, and with its time to ``train.log``; the
    logger ``l2q.file`` to the file alone. A warning is a line for people, in both."""
    form = logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s")
    screen, file = _Screen(), _File(folder / LOG, encoding="utf-8", delay=True, errors="backslashreplace")
    file.setFormatter(form)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts
    root, quiet, show = logging.getLogger(), logging.getLogger("l2q.file"), warnings.showwarning
    before = root.handlers[:], root.level, quiet.handlers[:], quiet.propagate

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {printable(str(message))}", file=sys.stderr)
        quiet.warning(message)

    root.handlers, root.level, quiet.handlers, quiet.propagate = [screen, file], logging.INFO, [file], False
    warnings.showwarning = show_warning
    try:
        yield
    finally:
        root.handlers, root.level, quiet.handlers, quiet.propagate = before
        warnings.showwarning = show
        file.close()
