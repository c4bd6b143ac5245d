"""What a file is by its first bytes, and what is in a compressed one."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import IO

from l2q.errors import L2QError

KINDS = (  # first bytes, kind
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"]\x00\x00", "xz"),  # LZMA without the container of xz
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow stream"),
    (b"SQLite format 3\x00", "sqlite"),
)
# what is no table here, and what to do about it
REFUSED = (
    (
        b"\x93NUMPY",
        "an array of NumPy; give numpy.load of it as a SciPy matrix, or write its pairs as a table",
    ),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the sheet as CSV or Parquet"),
    (b"\x89HDF", "an HDF5 file; read it with pandas.read_hdf and give the table, or save that as Parquet"),
    (b"ORC", "an ORC file; save it as Parquet"),
    (b"Obj\x01", "an Avro file; save it as Parquet"),
    (b"FEA1", "a Feather file of version 1; save it as Feather 2 or Parquet"),
    (b"RDX", "a file of R; write it with write.csv or arrow::write_parquet"),
    (b"X\n\x00\x00", "a file of R; write it with write.csv or arrow::write_parquet"),
    (b"MATLAB", "a file of MATLAB; write its pairs as a table"),
    (b"%PDF", "a PDF"),
    (b"\x04\x22\x4d\x18", "an LZ4 file; unpack it first"),
    (b"\xff\x06\x00\x00sNaPpY", "a Snappy file; unpack it first"),
    (b"\x1f\x9d", "a file of compress; unpack it first"),
    (b"PARE", "an encrypted Parquet file; write it without encryption"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, and the file itself is not there; git lfs pull fetches it",
    ),
)
PICKLE = "a pickle, which could run any program and is never opened; save the table as Parquet"
DEEP = 3  # archives within archives
CHUNK = 1 << 22


def kind_of(path: Path, where: str) -> str:
    """ "text", "json", or one of ``KINDS``, by content. Raises L2QError for what holds no table, saying what it is."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise L2QError(f"{where} is empty")
    for begin, what in REFUSED:
        if head.startswith(begin):
            raise L2QError(f"{where} is {what}")
    if head[0] == 0x80 and len(head) > 1 and head[1] in range(2, 6):
        raise L2QError(f"{where} is {PICKLE}")
    if head[257:262] == b"ustar":
        raise L2QError(f"{where} is a tar archive; unpack it and give the table in it")
    for begin, kind in KINDS:
        if head.startswith(begin):
            return kind
    if head[8:12] == b"DUCK":
        return "duckdb"
    text = head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    text = text.replace(b"\0", b"").lstrip()
    if text[:1] == b"<":
        what = "a web page, perhaps of a login or an error; download the table itself" if b"html" in text.lower() else (
            "XML; save it as CSV or Parquet"
        )  # fmt: skip
        raise L2QError(f"{where} is {what}")
    if text[:1] == b"{" or (text[:1] == b"[" and text[1:].lstrip()[:1] in (b"{", b"[", b"]", b"")):
        return "json"
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff") or abs(
        head[::2].count(0) - head[1::2].count(0)
    ) > 0.2 * len(head)
    controls = sum(
        head.count(byte) for byte in range(32) if byte not in (0, 1, 9, 10, 12, 13, *range(26, 32))
    )
    if (
        path.suffix.lower() in (".pkl", ".pickle", ".joblib", ".pt", ".pth")
        and not wide
        and head[-1:] != b"\n"
    ):
        raise L2QError(f"{where} is {PICKLE}")
    if not wide and (controls > 0.02 * len(head) or head.count(0) > 0.3 * len(head)):
        raise L2QError(
            f"{where} is neither text nor a table of a kind that is known, such as CSV, JSON lines or Parquet"
        )
    return "text"


def unpacked(path: Path, where: str, folder: Path) -> tuple[Path, str, str]:
    """The file within compressed ones, in ``folder``, its name in messages and its kind. Raises L2QError for an archive
    of several files, listing them, and for a broken one."""
    name = Path(path.name)
    for depth in range(DEEP + 1):
        kind = kind_of(path, where)
        if kind not in ("gzip", "zip", "zstd", "bzip2", "xz"):
            return path, where, kind
        to = folder / f"unpacked-{depth}-{name.stem or 'table'}"
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            if kind == "zip":
                where = _unzip(path, where, to)
            else:
                with _opened(path, kind) as source, to.open("wb") as out:
                    shutil.copyfileobj(source, out, CHUNK)
        except (
            OSError,
            EOFError,
            zlib.error,
            lzma.LZMAError,
            zipfile.BadZipFile,
            RuntimeError,
            ValueError,
        ) as e:
            if isinstance(e, OSError) and e.errno is not None and e.strerror:
                raise L2QError(
                    f"cannot unpack {where} to {folder}: {e.strerror}; TMPDIR names another folder"
                ) from e
            what = "cut off" if isinstance(e, EOFError) else str(e).splitlines()[0] if str(e) else "broken"
            raise L2QError(f"cannot unpack {where}, a {kind} file: {what}") from e
        if depth:
            path.unlink()
        path, name = to, Path(name.stem)
    raise L2QError(f"{where} is an archive within archives; unpack it first")


def _opened(path: Path, kind: str) -> IO[bytes]:
    if kind == "zstd":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind](path, "rb")  # type: ignore[operator]


def _unzip(path: Path, where: str, to: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        files = [name for name in archive.namelist() if name and not name.endswith("/")]
        names = [name for name in files if is_part(name)]
        if any(name.startswith("xl/") for name in names):
            raise L2QError(f"{where} is an Excel workbook; save the sheet as CSV or Parquet")
        if names and all(name.endswith(".npy") for name in names):
            raise L2QError(
                f"{where} holds arrays of NumPy; give scipy.sparse.load_npz of it to l2q.read_events"
            )
        if any(name.endswith("data.pkl") for name in names):
            raise L2QError(f"{where} is {PICKLE}")
        if len(names) != 1:
            several = (
                f"several files: {', '.join(sorted(names)[:20])}; unpack it and give one"
                if names
                else "no table"
            )
            raise L2QError(f"{where} holds {several}")
        with archive.open(names[0]) as source, to.open("wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
        return f"{where}/{names[0]}"


def is_part(name: str) -> bool:
    """Whether a file of a folder or archive may be a table: not hidden, no mark of Spark, no text for people."""
    parts = [part for part in name.split("/") if part]
    hidden = any(part.startswith((".", "_")) and "=" not in part for part in parts)
    last = parts[-1].lower()
    return not (
        hidden
        or last.startswith(("readme", "license", "licence", "copying", "changelog"))
        or last.endswith(
            (".md", ".html", ".htm", ".pdf", ".rst", ".crc", ".png", ".jpg", ".py", ".sh", ".sha256", ".md5")
        )
    )
