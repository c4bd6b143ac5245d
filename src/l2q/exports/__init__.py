"""An index for the engines that people serve from: a module an engine, each ranking as the index itself does.

index = l2q.load_index("index")
l2q.export(index, "duckdb", "duckdb")
"""

from __future__ import annotations

import importlib
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from l2q.errors import L2QError
from l2q.files import replaced_folder, writing

if TYPE_CHECKING:  # the command line asks for ENGINES alone
    from l2q.exports.codes import Codes
    from l2q.retrieval.named import Index

FIRST_WORDS = "# Codes for "
"""Of README.md: by these an export is known."""
OWN = re.compile(
    r"README\.md|rank\.(py|sql)|load\.sql|index\.duckdb|items\.(faiss|usearch)|query\.npy|dims\.json"
    r"|(items|users|rank)\.json|(items|users)\.(ndjson|jsonl)|item\.sd"
    r"|(users|items|train)\.parquet|(users|items)\.(txt|degrees\.npy)|users\.npy|train\.(indptr|items)\.npy"
)
"""Names of an export's files. Others in its folder are not its own, and are left alone."""
ENGINES = ("faiss", "usearch", "duckdb", "postgres", "parquet", "elasticsearch", "vespa")


class Engine(Protocol):
    """What the module of an engine has."""

    def write(self, codes: Codes, folder: Path) -> str:
        """Writes the files, the query that ranks among them, and returns what they are, in Markdown. Raises L2QError
        for codes that the engine cannot rank exactly."""


def export(index: Index, to: str, out: str | Path | None = None, *, history: bool = True) -> Path:
    """Writes the codes of an index for an engine: one of ``ENGINES``. The folder ``out`` (None: ``export/ENGINE``)
    holds its files or statements, the query that ranks, and a README.md about them; an export that is there is
    replaced, and other files beside it stay. Returns the folder.

    ``history`` False leaves out what users have: the export is smaller, and no ranking excludes it.

    Raises L2QError for float rows, for codes that the engine cannot rank exactly, for a library that is missing, and
    where the folder holds something else or cannot be written.

        codes = l2q.quantize(model.user_factors, model.item_factors, bits=256, train=train)
        l2q.export(codes, "duckdb", "duckdb")
    """
    from l2q.exports.codes import Codes

    if to not in ENGINES:
        raise L2QError(f"to={to!r} is no engine; give one of {', '.join(ENGINES)}")
    engine = cast(Engine, importlib.import_module(f"{__name__}.{to}"))
    codes = Codes.of(index, history)
    folder = Path(f"export/{to}" if out is None else out)
    check = partial(_check_replaceable, folder)
    with writing(folder, codes.nbytes), replaced_folder(folder, OWN.fullmatch, check) as fresh:
        said = engine.write(codes, fresh)
        (fresh / "README.md").write_text(f"{said.strip()}\n{_end(codes)}", "utf-8")
    return folder


def _check_replaceable(folder: Path) -> None:
    """Raises L2QError where the folder is a file, or holds something else than an export."""
    if folder.exists() and not folder.is_dir():
        raise L2QError(f"{folder} is a file; give a folder for the export")
    if folder.exists() and any(folder.iterdir()):
        readme = folder / "README.md"
        if not readme.is_file() or not readme.read_bytes().startswith(FIRST_WORDS.encode()):
            raise L2QError(f"{folder} holds something else than an export; give another folder")


def _end(codes: Codes) -> str:
    """What every README.md says of users' train items."""
    if not codes.excludes:
        return "\nThe index knew no user's items: nothing is excluded.\n"
    if codes.history is None:
        return (
            "\nWhat users have in train is not here (`--without-history`): rankings hold those items too. Leave them "
            "out where they are known.\n"
        )
    return "\nWhat a user has in train is left out of the ranking. What came later is not known here.\n"
