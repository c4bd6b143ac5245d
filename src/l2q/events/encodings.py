"""In which encoding a text file is."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from l2q.errors import L2QError
from l2q.events.lines import BLOCK

MARKS = (  # the longer first: that of UTF-32 begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path, where: str, given: str | None = None) -> tuple[str, str]:
    """Python's name of the encoding, and a sentence where that is worth one.

    A byte order mark decides; else bytes 0 at every second place say UTF-16; else a file that is UTF-8 as a whole is
    UTF-8; else one whose letters beyond ASCII stand apart from each other, as in western texts, is Windows-1252.
    Raises L2QError, naming ``encoding=``, for every other.
    """
    with path.open("rb") as file:
        head = file.read(1 << 16)
        if given is not None:
            try:
                name = codecs.lookup(given).name
                if "a".encode(name).decode(name, "replace") != "a":  # rot13, base64: no letters of texts
                    raise LookupError
                codecs.getincrementaldecoder(name)("replace").decode(b"a")
            except (LookupError, TypeError, ValueError) as error:
                raise L2QError(
                    f"encoding={given!r} is none that Python knows, such as utf-8 or cp1252"
                ) from error
            if name != "utf-8":
                return name, ""
        for mark, name in MARKS:
            if head.startswith(mark):
                return name, "" if name == "utf-8" else f"the text is {name.upper()}"
        if wide := _wide(head):
            return wide, f"the text is {wide[:6].upper()} without a byte order mark"
        decoder = codecs.getincrementaldecoder("utf-8")()
        file.seek(0)
        line = 1
        while True:
            block = file.read(BLOCK)
            try:
                if not block or not block.isascii() or decoder.getstate()[0]:
                    decoder.decode(block, not block)
            except UnicodeDecodeError as error:
                line += block.count(b"\n", 0, error.start)
                if given is not None:
                    raise L2QError(
                        f"{where}:{line}: the text is not utf-8; encoding= names what it is in"
                    ) from error
                return _western(path, f"{where}:{line}", (block or head)[max(error.start - 100, 0) :])
            if not block:
                return "utf-8", ""
            line += block.count(b"\n")


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: bytes 0, all but a few at even places or all at odd ones."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if even + odd < 0.02 * len(head) or min(even, odd) > 0.05 * max(even, odd):
        return ""
    name = "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return ""
    return name if "\n" in text or "\r" in text else ""


def _western(path: Path, place: str, sample: bytes) -> tuple[str, str]:
    with path.open("rb") as file:
        text = file.read(BLOCK) + sample[:BLOCK]
    runs = re.findall(rb"[\x80-\xff]+", text)
    characters = len(re.findall(rb"[\xc3-\xf4][\x80-\xbf]+", text))
    together = sum(len(run) for run in runs if len(run) > 1)
    alone = sum(len(run) == 1 for run in runs)
    if characters > alone or together > alone or re.search(rb"[\x81\x8d\x8f\x90\x9d]", text):
        raise L2QError(
            f"{place}: the text is not UTF-8; encoding= names what it is in, such as cp1252, cp1251, gbk or shift_jis"
        )
    return "cp1252", "the text is not UTF-8 and is read as Windows-1252 (latin-1); encoding= names another"
