"""The one exception for what a user can mend, and what is said of others."""

from __future__ import annotations

import errno
import os
import re
import sys
import unicodedata

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk without room for a file says."""
_DANGEROUS = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class L2QError(Exception):
    """Input that cannot be used; the message is one line that names the file, line, option or value
    and says what to do. ``train.py`` and ``python -m l2q`` print it without a traceback."""


def lacking(error: BaseException) -> str | None:
    """One line for what the machine lacked: memory, room or rights on a disk, a file; None for other errors.

    >>> lacking(PermissionError(13, "Permission denied", "/data/run"))
    '/data/run: Permission denied'
    >>> lacking(ValueError("a bug")) is None
    True
    """
    said = " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return f"memory of the GPU ran out: {'. '.join(said.split('. ')[1:3])}; give a smaller batch_size"
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryException"  # DuckDB's
        or (isinstance(error, RuntimeError) and "can't allocate memory" in said)
        or (
            isinstance(error, ImportError) and "failed to map segment" in said
        )  # a library that finds no room
    ):
        asked = re.search(r"allocate (\d+) bytes", said)
        more = (
            f"{int(asked[1]) / 2**20:,.0f} MiB more were needed"
            if asked
            else said.rstrip(".") or "nothing says how much"
        )
        return f"memory ran out ({more}); give a smaller model, batch_size or eval.memory_mb, or a larger machine"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        advice = "; make room, or write to another disk" if error.errno in FULL else ""
        return f"{where}{error.strerror or said or type(error).__name__}{advice}"
    return None


def printable(text: str) -> str:
    """``text`` without what moves a terminal's cursor, changes its colors or turns its letters round: such characters,
    and bytes that are no text, are shown as escapes. Line breaks and tabs stay.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(map(_shown, text)) if not text.isascii() or not text.isprintable() else text


def _shown(letter: str) -> str:
    if letter in "\n\t" or (unicodedata.category(letter) not in _DANGEROUS and letter not in _TURNS):
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def print_anything() -> None:
    """Makes the standard streams show what they cannot encode, such as names of files that are no text, as escapes.
    What goes to one that was closed, as by ``>&-``, goes nowhere; and no other file gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
