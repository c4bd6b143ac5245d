"""Whatever holds a table opens as one: its columns, rows and notes, or one line that says why not."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import pickle
import tarfile
import uuid
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from l2q.errors import L2QError
from l2q.events import lines
from l2q.events.containers import open_table

TABLES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "tables"


def opened(source, **options):
    """Names of columns, whether there is a header, rows, notes and what was dropped."""
    with open_table(source, **options) as table:
        rows = table.connection.execute("SELECT * FROM events").fetchall()
        assert table.rows == len(rows)
        return [column.name for column in table.columns], table.header, rows, table.notes, table.dropped


def refused(source, **options) -> str:
    with pytest.raises(L2QError) as error:
        open_table(source, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def written(tmp_path):
    def write(content: bytes | str, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path, monkeypatch):
    """Every temporary file is gone once a table is closed or refused."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


WORDS = "user,item\n" + "".join(f"u{n % 7},i{n % 5}\n" for n in range(20))
ROWS = [(f"u{n % 7}", f"i{n % 5}") for n in range(20)]


@pytest.mark.parametrize(
    ("delimiter", "between"),
    [(None, ","), (None, "\t"), (None, ";"), (None, "|"), (None, "::"), (None, " "), (None, "   "), (None, "\x01"),
     ("#", "#"), ("tab", "\t"), ("||", "||"), ("\\t", "\t")],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", [".csv", ".dat"])
def test_delimiters_line_ends_and_suffixes(written, delimiter, between, end, suffix):
    path = written(WORDS.replace(",", between).replace("\n", end), f"table{suffix}")
    names, header, rows, notes, dropped = opened(path, delimiter=delimiter)
    assert (names, header, rows, notes, dropped) == (["user", "item"], True, ROWS, [], {})


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("sep=;\nuser;item\nu1;i1\nu2;i2\n", ["user", "item"], ("u1", "i1")),
        ('"sep=|"\nuser|item\nu1|i,1\nu2|i,2\n', ["user", "item"], ("u1", "i,1")),
        ("# by the shop\nuser,item\nu1,i1\nu2,i2\n", ["user", "item"], ("u1", "i1")),
        ("# by the shop\n# user,item\nu1,i1\nu2,i2\n", ["user", "item"], ("u1", "i1")),
        ("#user\titem\nu1\ti1\nu2\ti2\n", ["user", "item"], ("u1", "i1")),
        (
            "% bip unweighted\n1 2 1 99\n1 3 1 98\n2 2 1 97\n",
            [f"column{n}" for n in (1, 2, 3, 4)],
            ("1", "2", "1", "99"),
        ),
        ("\n\nuser,item\n\nu1,i1\n\nu2,i2\n\n  \n", ["user", "item"], ("u1", "i1")),
        ('"user","item"\n"u,1","i""1"\n"u2","i2"\n', ["user", "item"], ("u,1", 'i"1')),
        ("user;item;rating\nu1;i1;4,5\nu2;i2;3\n", ["user", "item", "rating"], ("u1", "i1", "4.5")),
        ("u1;i1;4,5\nu2;i2;3,5\nu3;i1;3,0\n", ["column1", "column2", "column3"], ("u1", "i1", "4.5")),
        ("user;price\nu1;1,000\nu2;2,500\n", ["user", "price"], ("u1", "1,000")),  # thousands stay as they are
        ("user,item,genres\nu1,i1,a|b\nu2,i2,a|b|c\nu1,i3,b|c\n", ["user", "item", "genres"], ("u1", "i1", "a|b")),
        ("1,2,a|b|c|d\n2,3,b|c|d|e\n1,3,a|b|c|d\n", ["column1", "column2", "column3"], ("1", "2", "a|b|c|d")),
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t4\n5\t6\t5\t8\n",
         ["user_id", "item_id", "rating", "timestamp"], ("1", "2", "3", "4")),
        ("user,item,user\na,b,c\nd,e,f\n", ["user", "item", "user_2"], ("a", "b", "c")),
        ("User,item,user\na,b,c\nd,e,f\n", ["User", "item", "user_2"], ("a", "b", "c")),
        (",user,item\n0,u1,i1\n1,u2,i2\n", ["column1", "user", "item"], ("0", "u1", "i1")),
        ('"user","item"\n"1","u1","i1"\n"2","u2","i2"\n', ["column1", "user", "item"], ("1", "u1", "i1")),  # of R
        ("user,item,\nu1,i1\nu2,i2\n", ["user", "item"], ("u1", "i1")),
        ("user,item\nu1,i1,\nu2,i2,\n", ["user", "item", "column3"], ("u1", "i1", None)),
        (" user , item \nu1,i1\nu2,i2\n", ["user", "item"], ("u1", "i1")),
        ("user,item\nu1,\n,i2\nu2,i2\n", ["user", "item"], ("u1", None)),
    ],
)  # fmt: skip
def test_first_lines(written, text, names, first):
    found, _, rows, *_ = opened(written(text))
    assert found == names
    assert rows[0] == first


@pytest.mark.parametrize(
    "text",
    [
        "user,item\n1,2\n3,4\n",
        "usuário,item\nanna,libro\nbea,disco\nanna,disco\n",
        "клиент,товар\n1,2\n3,4\n",
        "客户,商品\nu1,p1\nu2,p2\n",
        "x!,y?\n1,2\n1,3\n",
        "foo,bar\n1,b\n2,c\n",
        "foo,bar\nu1,i1\nu2,i2\n",
        "customer_id,article_id\nanna,chair\nbea,table\n",
        "Kunde,Artikel\nanna,stuhl\nbea,tisch\nanna,tisch\nbea,stuhl\n",
        "who,what\nanna,chair\nbea,table\nanna,table\nbea,chair\nanna,chair\n",
        "day,who\n2020-01-01,anna\n2020-01-02,bea\n",
        "user,item\n",
        "userId,movieId,rating\nNA,2,3\n1,3,NA\n2,3,4\n",
    ],
)
def test_a_header(written, text):
    names, header, rows, *_ = opened(written(text))
    first, *below = text.splitlines()
    assert header
    assert names == first.split(",")
    assert len(rows) == len(below)


@pytest.mark.parametrize(
    "text",
    [
        "1,1,5\n1,2,4\n2,1,3\n",
        "1,1\n1,2\n2,1\n",
        "user00,item00\nuser00,item02\nuser01,item00\n",
        "user00,item00,1\nuser00,item02,1\nuser01,item00,1\n",
        "anna,chair\nanna,table\nbea,chair\n",
        "a1b2-c3,x\nd4e5-f6,y\n",
        "anna,2020-01-01\nbea,2020-01-02\n",
        "u1,i1\n",
        "3,user,item\n4,user,item\n",  # no names: they come again
        "0,1\n2,3\n",
        "-1,5.0\n-1,4.0\n",
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
    ],
)
def test_no_header(written, text):
    names, header, rows, *_ = opened(written(text))
    assert not header
    assert names == [f"column{n + 1}" for n in range(len(names))]
    assert len(rows) == len(text.splitlines())


def test_columns_that_are_numbered_have_no_names(written):
    names, header, rows, notes, _ = opened(written("0,1\nanna,chair\nbea,table\n"))
    assert (names, header, rows) == (["column1", "column2"], False, [("anna", "chair"), ("bea", "table")])
    assert notes == ["the first line numbers the columns and is no event"]


def test_header_is_what_the_option_says(written):
    path = written("anna,chair\nbea,table\n")
    assert opened(path, header=True)[:3] == (["anna", "chair"], True, [("bea", "table")])
    assert opened(path, header=False)[:3] == (
        ["column1", "column2"],
        False,
        [("anna", "chair"), ("bea", "table")],
    )
    path = written("user,item\n1,2\n")
    assert opened(path, header=False)[2] == [("user", "item"), ("1", "2")]
    assert opened(written("1,2\n3,4\n"), header=True)[:3] == (["1", "2"], True, [("3", "4")])


def test_a_line_that_may_be_either_is_an_event_and_that_is_said(written):
    _, header, rows, notes, _ = opened(written("wer,was\nanna,stuhl\nbea,tisch\n"))
    if not header:
        assert len(rows) == 3
        assert notes == ["the first line, wer, was, is taken for an event; header=true takes it for names"]


def test_roles_that_recbole_declares(written):
    text = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t4\n5\t6\t5\t8\n"
    with open_table(written(text, "ml.inter")) as table:
        assert [column.role for column in table.columns] == ["user", "item", "value", "time"]


@pytest.mark.parametrize(
    ("encoding", "given", "note"),
    [
        ("utf-8", None, None),
        ("utf-8-sig", None, None),
        ("utf-16", None, "the text is UTF-16"),
        ("utf-16-le", None, "the text is UTF-16 without a byte order mark"),
        ("utf-16-be", None, "the text is UTF-16 without a byte order mark"),
        ("utf-32", None, "the text is UTF-32"),
        (
            "latin-1",
            None,
            "the text is not UTF-8 and is read as Windows-1252 (latin-1); encoding= names another",
        ),
        ("cp1252", "cp1252", None),
        ("cp1252", "Latin-1", None),
        ("cp850", "cp850", None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings(written, encoding, given, note, end):
    text = end.join(["usuário,item", "José,café", "Zoë,crème", "Zoë,café", ""])
    names, _, rows, notes, _ = opened(written(text.encode(encoding)), encoding=given)
    assert names == ["usuário", "item"]
    assert rows == [("José", "café"), ("Zoë", "crème"), ("Zoë", "café")]
    assert notes == ([note] if note else [])


@pytest.mark.parametrize(
    ("encoding", "text"), [("cp1251", "клиент,товар"), ("gbk", "客户,商品"), ("shift_jis", "顧客,商品")]
)
def test_encodings_that_cannot_be_told_apart_are_asked_for(written, encoding, text):
    path = written((text + "\n1,2\n2,3\n").encode(encoding))
    assert refused(path).startswith(f"{path}:1: the text is not UTF-8; encoding= names what it is in")
    assert opened(path, encoding=encoding)[0] == text.split(",")


def test_an_encoding_that_is_not_the_files(written):
    path = written("user,item\n1,2\n2,ä\n".encode("cp1252"))
    assert (
        refused(path, encoding="utf-8") == f"{path}:3: the text is not utf-8; encoding= names what it is in"
    )
    assert "encoding='klingon' is none that Python knows" in refused(path, encoding="klingon")


def test_a_broken_letter_in_a_text_of_utf8_is_no_latin1(written):
    path = written("user,item\n1,ä\n2,ö\n".encode() + b"3,\xff\n")
    assert refused(path).startswith(f"{path}:4: the text is not UTF-8")


def test_latin1_far_behind(written, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 64)
    monkeypatch.setattr("l2q.events.encodings.BLOCK", 64)
    rows = opened(written(WORDS.encode() + b"u1,caf\xe9\n"))[2]
    assert rows == [*ROWS, ("u1", "café")]


@pytest.mark.parametrize("block", [1 << 24, 40])
@pytest.mark.parametrize(
    ("text", "rows", "notes"),
    [
        # a quote that never closes, one that finds another far below, one within a text
        ('u,i,t\n1,2,"x\n3,4,y\n', [("1", "2", '"x'), ("3", "4", "y")], 1),
        ('u,i,t\n1,2,"x\n3,4,y\n5,6,a"\n', [("1", "2", '"x'), ("3", "4", "y"), ("5", "6", 'a"')], 1),
        ('u,i,t\n1,2,5" disk\n3,4,y\n', [("1", "2", '5" disk'), ("3", "4", "y")], 0),
        ('u,i,t\n1,2,"5"" disk"\n3,4,y\n', [("1", "2", '5" disk'), ("3", "4", "y")], 0),
        ('u,i,t\n1,2,"A" b\n3,4,y\n', [("1", "2", '"A" b'), ("3", "4", "y")], 1),
        ('u,i,t\n"1",2,"a \\"b\\", c"\n3,4,y\n', [("1", "2", 'a "b", c'), ("3", "4", "y")], 0),
        ('u,i,t\n1,2,"a "b" c"\n3,4,y\n', [("1", "2", 'a "b" c'), ("3", "4", "y")], 0),
        ('u,i,t\n1,2, "a, b"\n3,4,y\n', [("1", "2", "a, b"), ("3", "4", "y")], 0),
        # texts of several lines
        ('u,i,t\n1,2,"x\ny"\n3,4,z\n', [("1", "2", "x\ny"), ("3", "4", "z")], 0),
        ('u,t,i\n1,"x, w\n\ny, z\n",2\n3,4,z\n', [("1", "x, w\n\ny, z\n", "2"), ("3", "4", "z")], 0),
        ('u,t,i\n1,"x ""w""\ny",2\n3,"4\n5",z\n', [("1", 'x "w"\ny', "2"), ("3", "4\n5", "z")], 0),
        # a text whose further lines have as many fields as an event, but no numbers where events have them
        ('u,i,t\n1,2,"x\nand, so, on"\n3,4,z\n', [("1", "2", "x\nand, so, on"), ("3", "4", "z")], 0),
        # quoted fields are read beside a quote that is none
        ('u,i,t\n"1","2,5",a\n3,4,"b\n5,6,c\n', [("1", "2,5", "a"), ("3", "4", '"b'), ("5", "6", "c")], 1),
    ],
)  # fmt: skip
def test_quotes(written, monkeypatch, block, text, rows, notes):
    monkeypatch.setattr(lines, "BLOCK", block)
    found = opened(written(text))
    assert found[2] == rows
    said = [note for note in found[3] if "quote" in note]
    assert len(said) == bool(notes)
    if notes:
        assert said[0].startswith(
            "1 line has a quote that" if notes == 1 else f"{notes} lines have quotes that"
        )


def test_a_stray_quote_swallows_no_line_of_a_large_file(written, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 1000)
    many = [(f"u{n}", f"i{n}", '"odd' if n % 50 == 7 else "fine") for n in range(1000)]
    text = "".join("\t".join(row) + "\n" for row in many)
    _, _, rows, notes, _ = opened(written("user\titem\ttitle\n" + text, "t.tsv"))
    assert rows == many
    assert notes == [
        f"20 lines have quotes that enclose no field, taken for text, first {written(text, 't.tsv')}:9"
    ]


def test_long_texts_of_many_lines(written, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 500)
    many = [(f"u{n}", f"i{n}", "\n".join(f"line {k}, of {n}" for k in range(n % 40))) for n in range(300)]
    text = "".join(f'{u},{i},"{t}"\n' for u, i, t in many)
    rows = opened(written("user,item,review\n" + text))[2]
    assert rows == [(u, i, t or None) for u, i, t in many]


def test_a_line_longer_than_duckdb_expects(written):
    rows = opened(written(f"user,item,text\nu1,i1,{'x' * 3_000_000}\nu2,i2,y\n"))[2]
    assert [len(text) for *_, text in rows] == [3_000_000, 1]


def test_ragged_lines(written):
    path = written("user,item,rating\nu1,i1,5\nu2,i2,4,7\nu3,i3,3\n")
    assert refused(path).startswith(f"{path}:3: 4 fields where the other lines have 3")
    path = written("user,item,rating\n" + "u1,i1,5\n" * 10 + "u2,i2\n" + "u3,i3,3\n" * 10)
    _, _, rows, notes, dropped = opened(path)
    assert len(rows) == 20
    assert dropped == {"lines that lack columns": 1}
    assert notes == [f"1 line lacks columns and is left out, first {path}:12"]
    path = written("user,item,rating\nu1,i1,5\nu2,i2\nu3,i3\nu4,i4,3\nu5,i5,3\n")
    assert refused(path).startswith(f"{path}:3: fewer than 3 fields, as in 2 lines")
    path = written("user,item,rating\nu1,i1\nu2,i2\n")
    assert "the header has 3 names, but the lines below have 2 fields" in refused(path)
    assert opened(written("user,item\nu1,i1\nu2,i2,,\nu3,i3\n"))[2] == [
        ("u1", "i1"),
        ("u2", "i2"),
        ("u3", "i3"),
    ]


def test_a_header_within_is_dropped_and_counted(written):
    _, _, rows, notes, dropped = opened(written(WORDS + "user,item\nu8,i8\nuser,item\n"))
    assert rows == [*ROWS, ("u8", "i8")]
    assert dropped == {"repeated header": 2}
    assert notes == ["2 further lines repeat the header and are left out"]


def test_bytes_that_are_no_text_within_text(written):
    _, _, rows, notes, _ = opened(written(WORDS.encode() + b"u\08,i8\n\0\0\0"))
    assert rows == [*ROWS, ("u8", "i8")]
    assert notes == ["4 bytes 0 are left out"]
    _, _, rows, notes, _ = opened(written(WORDS.replace("\n", "\r\n", 3) + "u8,i\r8\n"))
    assert rows == [*ROWS, ("u8", "i 8")]
    assert notes == ["1 carriage return within a line is read as a space"]


def test_comments_within(written):
    _, _, rows, notes, _ = opened(written(WORDS + "# the second day\nu8,i8\n"))
    assert rows == [*ROWS, ("u8", "i8")]
    assert notes == ["1 line of comment within the events is left out"]
    assert opened(written(WORDS + "#u8,i8\n"))[2] == [*ROWS, ("#u8", "i8")]  # as many fields as an event


@pytest.mark.parametrize("block", [1 << 24, 30])
def test_netflix(written, monkeypatch, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    text = "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n2059652,4,2005-09-05\n"
    with open_table(written(text, "combined_data_1.txt")) as table:
        assert [(column.name, column.role) for column in table.columns] == [
            ("user", "user"), ("item", "item"), ("rating", "value"), ("date", "time")
        ]  # fmt: skip
        assert not table.header
        assert table.connection.execute("SELECT * FROM events").fetchall() == [
            ("1488844", "1", "3", "2005-09-06"),
            ("822109", "1", "5", "2005-05-13"),
            ("2059652", "2", "4", "2005-09-05"),
        ]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "t.csv", "is empty"),
        (b"\n\n \n", "t.csv", "no events"),
        (b"# only\n# comments\n", "t.csv", "no events"),
        (b"alone\nwords\n", "t.csv", "delimiter="),
        (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "t.csv", "a web page"),
        (b"<?xml version='1.0'?><a/>", "t.csv", "XML"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "t.npy", "an array of NumPy"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "t.csv", "an Excel workbook"),
        (b"\x89HDF\r\n\x1a\n", "t.csv", "HDF5"),
        (b"ORC\x00", "t.csv", "ORC"),
        (b"%PDF-1.4", "t.csv", "a PDF"),
        (b"\x04\x22\x4d\x18aaaa", "t.csv", "LZ4"),
        (bytes(range(256)) * 20, "t.csv", "neither text nor a table"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "t.csv", "git lfs pull"),
        (b"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 1\n", "t.mtx", "Matrix Market"),
        (b"0 1 2 3\n1 4\n2 5 6\n3 7 8 9 10\n", "train.txt", "as in train.txt of LightGCN"),
        (b"PAR1 and no more", "t.parquet", "cannot read"),
        (b"\x1f\x8b\x08 broken", "t.csv.gz", "cannot unpack"),
        (gzip.compress(b"user,item\n" * 99, mtime=0)[:-12], "t.csv.gz", "cut off"),
        (b"PK\x03\x04 broken", "t.zip", "cannot unpack"),
        (b"\xff\xff\xff\xff\x00\x00", "t.arrow", "cannot read"),
    ],
)  # fmt: skip
def test_what_is_no_table(written, content, name, said):
    path = written(content, name)
    message = refused(path)
    assert str(path) in message
    assert said in message


def test_a_pickle_is_never_opened(written, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    for name in ("t.pkl", "t.csv", "t.parquet"):
        for protocol in (0, 2, 5):
            message = refused(written(pickle.dumps(Trap(), protocol), name))
            assert name in message
    assert not (tmp_path / "executed").exists()


def test_what_is_not_there(tmp_path):
    path = tmp_path / "t.csv"
    assert refused(path) == f"cannot read {path}: there is no such file or folder"
    assert refused("https://example.org/t.csv").endswith("or download it, and give the file")
    assert refused(tmp_path / "*.csv") == f"no file fits the pattern {tmp_path / '*.csv'}"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == f"{tmp_path / 'empty'} is a folder without a table of events"
    assert refused(42).startswith("events of type int cannot be read")


def packed(kind: str, content: bytes) -> bytes:
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("__MACOSX/._t.csv", b"\0\1")
            archive.writestr("README.txt", "about it")
            archive.writestr("inner/t.csv", content)
        return buffer.getvalue()
    if kind == "zst":
        return pa.compress(content, "zstd", asbytes=True)
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](content)


@pytest.mark.parametrize("kind", ["gz", "zip", "zst", "bz2", "xz"])
@pytest.mark.parametrize("name", ["t.csv.{}", "t.csv", "t"])
def test_compressed_files_whatever_their_name(written, kind, name):
    path = written(packed(kind, WORDS.encode()), name.format(kind))
    assert opened(path)[:4] == (["user", "item"], True, ROWS, [])


def test_compressed_parquet_json_and_utf16(written, tmp_path):
    pd.DataFrame(ROWS, columns=["user", "item"]).to_parquet(tmp_path / "t.parquet")
    path = written(packed("zip", (tmp_path / "t.parquet").read_bytes()), "t.zip")
    assert opened(path)[2] == ROWS
    path = written(packed("gz", b'{"user": "a", "item": 1}\n' * 3), "t.json.gz")
    assert opened(path)[2] == [("a", 1)] * 3
    path = written(packed("zip", gzip.compress(WORDS.encode("utf-16"))), "t.zip")
    assert opened(path)[2] == ROWS


def test_archives_of_several_files(written):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ratings.csv", WORDS)
        archive.writestr("movies.csv", "movie,title\n1,a\n")
    path = written(buffer.getvalue(), "t.zip")
    assert refused(path) == f"{path} holds several files: movies.csv, ratings.csv; unpack it and give one"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("t.csv"))
    for content in (buffer.getvalue(), gzip.compress(buffer.getvalue())):
        assert "is a tar archive" in refused(written(content, "t.tar"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    assert "is an Excel workbook; save the sheet as CSV or Parquet" in refused(
        written(buffer.getvalue(), "t.xlsx")
    )
    assert "is an Excel workbook" in refused(written(buffer.getvalue(), "t.csv"))
    np.savez(buffer := io.BytesIO(), users=np.arange(3))
    assert "arrays of NumPy" in refused(written(buffer.getvalue(), "t.npz"))


def test_a_folder_of_parts(written, tmp_path):
    for number in range(11):
        written(f"user,item\nu{number},i\n", f"spark/part-{number:05}.csv")
    written("", "spark/_SUCCESS")
    written("x", "spark/.part-00000.csv.crc")
    written("", "spark/part-00099.csv")
    expected = [(f"u{number}", "i") for number in range(11)]
    assert opened(tmp_path / "spark")[:3] == (["user", "item"], True, expected)
    assert opened(str(tmp_path / "spark" / "*.csv"))[2] == expected
    assert opened(str(tmp_path / "spark" / "part-0000[12].csv"))[2] == expected[1:3]
    for number in range(3):
        written(gzip.compress(f"u{number}\ti\t{number}\n".encode()), f"gz/part-{number}.gz")
    assert opened(tmp_path / "gz")[:3] == (
        ["column1", "column2", "column3"],
        False,
        [(f"u{n}", "i", str(n)) for n in range(3)],
    )


def test_parts_of_which_one_is_mended_keep_their_order(written, tmp_path):
    written("user,item,t\nu0,i0,x\nu00,i0,x\n", "parts/0.csv")
    written('user,item,t\nu1,i1,"x\nu11,i1,y\n', "parts/1.csv")
    written("# a comment\nuser,item,t\nu2,i2,x\n", "parts/2.csv")
    written("u3,i3,x\n", "parts/3.csv")  # split behind the header
    written("user,item,t\r\nu4,i4,x\r\n", "parts/4.csv")
    rows = opened(tmp_path / "parts")[2]
    assert [user for user, *_ in rows] == ["u0", "u00", "u1", "u11", "u2", "u3", "u4"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_partitions_of_hive_are_a_column(written, tmp_path, end):
    for day in ("2020-01-01", "2020-01-02"):
        written(f"user,item{end}u,{day[-1]}{end}", f"hive/day={day}/part-0.csv")
    names, _, rows, *_ = opened(tmp_path / "hive")
    assert names == ["user", "item", "day"]
    assert rows == [("u", "1", "2020-01-01"), ("u", "2", "2020-01-02")]
    for day in ("1", "2"):
        (tmp_path / f"p/day={day}").mkdir(parents=True)
        pd.DataFrame({"user": ["u"], "item": [int(day)]}).to_parquet(tmp_path / f"p/day={day}/x.parquet")
    assert opened(tmp_path / "p")[2] == [("u", 1, "1"), ("u", 2, "2")]


def test_parts_of_several_tables_are_refused(written, tmp_path):
    written(WORDS, "set/ratings.csv")
    written("movie,tag,relevance\n1,2,0.5\n", "set/genome.csv")
    written("all about it", "set/README.txt")
    assert refused(tmp_path / "set") == (
        f"{tmp_path / 'set'} holds several tables, give one of them: genome.csv (movie, tag, relevance); "
        "ratings.csv (user, item)"
    )
    written("user,thing\n1,2\n", "pair/a.csv")
    written("user,item\n1,2\n", "pair/b.csv")
    assert "a.csv (user, thing); b.csv (user, item)" in refused(tmp_path / "pair")
    written("user,item\n1,2\n", "kinds/a.csv")
    pd.DataFrame({"user": [1], "item": [2]}).to_parquet(tmp_path / "kinds" / "b.parquet")
    assert "a.csv (user, item); b.parquet (user, item)" in refused(tmp_path / "kinds")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    assert "is a Delta table" in refused(tmp_path / "delta")


RECORDS = [{"user": "u1", "item": 1, "rating": 4.5}, {"user": "u2", "item": 2, "when": "2020-01-01"}]


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.ndjson", "t.csv"])
def test_json_lines_and_arrays(written, name):
    expected = [("u1", 1, 4.5, None), ("u2", 2, None, "2020-01-01")]
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    for content in (
        text,
        text.replace("\n", "\r\n"),
        "\ufeff" + text,
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
    ):
        names, _, rows, *_ = opened(written(content, name))
        assert (names, rows) == (["user", "item", "rating", "when"], expected)
    assert opened(written(text.encode("utf-16"), name))[2] == expected


def test_json_within_json(written):
    text = '{"user": {"id": 1, "tags": ["a"]}, "item": {"$oid": "x"}, "tags": [1, 2]}\n' * 3
    with open_table(written(text, "t.json")) as table:
        types = {column.name: column.type for column in table.columns}
        assert types == {
            "user.id": "BIGINT",
            "user.tags": "VARCHAR[]",
            "item.$oid": "VARCHAR",
            "tags": "BIGINT[]",
        }
        assert (
            table.connection.execute('SELECT "user.id", "item.$oid" FROM events').fetchall() == [(1, "x")] * 3
        )


def test_json_of_late_types(written):
    text = '{"user": 1, "item": "2020-01-01"}\n' * 30_000 + '{"user": "x", "item": "late", "new": true}\n'
    with open_table(written(text, "t.json")) as table:
        assert {column.name: column.type for column in table.columns} == {
            "user": "VARCHAR", "item": "VARCHAR", "new": "BOOLEAN"
        }  # fmt: skip
        assert table.connection.execute("SELECT * FROM events OFFSET 30000").fetchall() == [
            ("x", "late", True)
        ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"user": 1, "item": 2}\n{"user": 1, "item"\n', "t.json"),
        ("{'user': 'a', 'item': 'b'}\n{'user': 'a', 'item': 'c'}\n", "written in Python, not JSON"),
        ('{"columns": ["user", "item"], "data": [[1, 2]]}', "is one object"),
        ('{"user": {"0": 1, "1": 2},\n "item": {"0": 3}}', "is one object"),
        ('[{"user": 1, "item": 2}', "t.json"),
        ("[[1, 2], [3, 4]]", "t.json"),
    ],
)
def test_json_that_is_no_table(written, text, said):
    assert said in refused(written(text, "t.json"))


def test_types_of_parquet_and_arrow(tmp_path):
    ids = [uuid.UUID(int=n) for n in range(2)]
    table = pa.table(
        {
            "user": pa.array([i.bytes for i in ids], pa.uuid()),
            "fixed": pa.array([b"\x00\xff" * 8, b"\x01\xff" * 8], pa.binary(16)),
            "text": pa.array([b"abc", b"\xc3\xa4"], pa.binary()),
            "kind": pa.array(["a", "b"]).dictionary_encode(),
            "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
            "when": pa.array([datetime.datetime(2020, 1, 2, 3)] * 2, pa.timestamp("ns", "UTC")),
            "day": pa.array([datetime.date(2020, 1, 2)] * 2),
            "list": pa.array([[1], [2, 3]]),
            "large": pa.array(["x", None], pa.large_string()),
            "view": pa.array(["y", "z"], pa.string_view()),
            "small": pa.array([1, 2], pa.uint8()),
            "half": pa.array([1.5, 2.5], pa.float16()),
            "none": pa.nulls(2),
        }
    )
    plain = table.drop_columns(["view"])
    parquet.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(plain, str(tmp_path / "t.feather"))
    with ipc.new_stream(tmp_path / "t.arrows", table.schema) as writer:
        writer.write_table(table)
    for source in (tmp_path / "t.parquet", tmp_path / "t.feather", tmp_path / "t.arrows", table):
        with open_table(source) as found:
            types = {column.name: column.type for column in found.columns}
            assert {name: types[name] for name in ("user", "fixed", "text", "kind", "day", "list")} == {
                "user": "VARCHAR", "fixed": "VARCHAR", "text": "VARCHAR", "kind": "VARCHAR", "day": "DATE",
                "list": "BIGINT[]",
            }  # fmt: skip
            assert types["price"] == "DECIMAL(9,2)"
            assert types["when"].startswith("TIMESTAMP")
            assert found.connection.execute(
                "SELECT user, fixed, text, kind, large, small FROM events"
            ).fetchall() == [
                (str(ids[0]), "00ff" * 8, "abc", "a", "x", 1),
                (str(ids[1]), "01ff" * 8, "ä", "b", None, 2),
            ]
            assert found.notes == ["column 'fixed' has bytes, which are read as hexadecimal digits"]


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"item": ["a", "b"], **columns})


@pytest.mark.parametrize(
    ("source", "columns", "index"),
    [
        (frame(), ["item"], []),
        (frame().set_index(pd.Index([7, 9])), ["item"], []),  # what a filter left
        (frame().set_index(pd.Index(["u", "v"])), ["index", "item"], ["index"]),
        (frame(user=["u", "v"]).set_index("user"), ["user", "item"], ["user"]),
        (frame(user=["u", "v"]).set_index("user", drop=False), ["item", "user"], []),
        (
            frame(user=["u", "v"], day=[1, 2]).set_index(["user", "day"]),
            ["user", "day", "item"],
            ["user", "day"],
        ),
        (frame().rename_axis("row"), ["row", "item"], ["row"]),
    ],
)
def test_the_index_of_pandas(source, columns, index, tmp_path):
    source.to_parquet(tmp_path / "t.parquet")
    source.to_feather(tmp_path / "t.feather") if not index and source.index.equals(pd.RangeIndex(2)) else None
    for given in (source, tmp_path / "t.parquet"):
        with open_table(given) as table:
            assert sorted(column.name for column in table.columns) == sorted(columns)
            assert [column.name for column in table.columns if column.index] == index


def test_columns_of_pandas(written):
    source = pd.DataFrame(
        {
            "mixed": [1, "a", None],
            "kind": pd.Categorical(["x", None, "y"]),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "float": [1.0, np.nan, 3.0],
            "when": pd.to_datetime(["2020-01-01", None, "2020-01-03"]),
            "id": [uuid.UUID(int=1), None, uuid.UUID(int=2)],
            3: [1, 2, 3],
        }
    )
    names, _, rows, notes, _ = opened(source)
    assert names == ["mixed", "kind", "whole", "float", "when", "id", "3"]
    when = datetime.datetime(2020, 1, 1)
    assert rows[0] == ("1", "x", 1, 1.0, when, str(uuid.UUID(int=1)), 1)
    assert rows[1] == ("a", None, None, None, None, None, 2)
    assert "column 'mixed' has values of several types, which are read as texts" in notes
    double = pd.DataFrame([[1, 2, 3]], columns=["user", "item", "item"])
    assert opened(double)[0] == ["user", "item", "item_2"]
    many = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    assert opened(many)[0] == ["a_x", "a_y"]


def test_other_frames():
    rows = [("u1", 1), ("u2", 2)]
    columns = {"user": ["u1", "u2"], "item": [1, 2]}
    arrow = pa.table(columns)
    for source in (
        arrow,
        arrow.to_batches()[0],
        arrow.to_reader(),
        pl.DataFrame(columns),
        pl.LazyFrame(columns),
        pl.DataFrame(columns, schema_overrides={"user": pl.Categorical}),
        duckdb.connect().sql("SELECT * FROM (VALUES ('u1', 1), ('u2', 2)) AS t(user, item)"),
    ):
        assert opened(source)[2] == rows


def test_a_query_over_a_file(written, tmp_path):
    path = written("user,item,event\nu1,i1,view\nu2,i2,buy\n")
    assert opened(path, query="SELECT user, item FROM events WHERE event = 'buy'")[2] == [("u2", "i2")]
    assert opened(path, query="SELECT user, count(*) AS n FROM events GROUP BY 1 ORDER BY 1 -- all")[0] == [
        "user",
        "n",
    ]
    other = written("secret,one\n1,2\n", "other.csv")
    for query in (
        "DROP VIEW events",
        "SELECT 1; SELECT 2",
        f"COPY events TO '{tmp_path / 'out.csv'}'",
        "",
        "SELEC",
    ):
        assert "query=" in refused(path, query=query)
    for query in (
        f"SELECT * FROM '{other}'",
        f"SELECT * FROM read_text('{other}')",
        "SELECT nothing FROM events",
    ):
        refused(path, query=query)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("kind", ["file", "copy", "frame"])
def test_the_connection_reads_nothing_else(written, tmp_path, kind):
    path = written(WORDS if kind == "file" else WORDS.replace("\n", "\r\n"))
    other = written("secret,one\n1,2\n", "other.csv")
    hidden = frame()  # a variable that SQL must not see
    source = path if kind != "frame" else pd.DataFrame(ROWS, columns=["user", "item"])
    with open_table(source) as table:
        for sql in (
            f"SELECT * FROM read_text('{other}')",
            f"SELECT * FROM '{other}'",
            f"SELECT * FROM glob('{tmp_path}/*')",
            f"COPY (SELECT 1) TO '{tmp_path}/written.csv'",
            f"ATTACH '{tmp_path}/new.duckdb'",
            "SELECT * FROM read_csv('https://example.org/t.csv')",
            "SELECT * FROM hidden",
            "INSTALL httpfs",
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
            "RESET lock_configuration",
        ):
            with pytest.raises(duckdb.Error):
                table.connection.execute(sql)
        assert table.connection.execute("SELECT count(*) FROM events").fetchone() == (20,)
    assert not (tmp_path / "written.csv").exists()
    assert len(hidden) == 2


def test_the_cases_at_hand():
    if not TABLES.is_dir():
        pytest.skip("the cases are not here")
    expected = {
        "date_first.csv": ["day", "customer", "article"],
        "invoice_first.csv": ["InvoiceNo", "StockCode", "Quantity", "CustomerID"],
        "latin1_header.csv": ["usuário", "item"],
        "no_header.tsv": ["column1", "column2", "column3"],
        "pandas_index.parquet": ["item_id", "rating", "user_id"],
        "stray_quote.tsv": ["user", "item", "title"],
        "utf16.csv": ["user", "item"],
    }
    for name, columns in expected.items():
        found, header, rows, *_ = opened(TABLES / name)
        assert (found, header, len(rows)) == (columns, name != "no_header.tsv", 234), name
    assert "genome.csv (movie, tag, relevance); ratings.csv (user_id, item_id)" in refused(TABLES / "tables")


@pytest.mark.parametrize(
    "ids", [[str(uuid.UUID(int=n * 7919**9)) for n in range(30)], [f"{n * 7919**5:X}" for n in range(1, 30)]]
)
def test_ids_of_many_shapes_are_no_header(written, ids):
    text = "".join(f"{name},{name[::-1]}\n" for name in ids)
    assert opened(written(text))[1] is False
    assert opened(written("who,what\n" + text))[:2] == (["who", "what"], True)


def test_odd_names_of_files_folders_and_columns(written, tmp_path):
    text = 'us\'er,"it""em",{x}\nu1,i1,1\nu2,i2,2\n'
    written("user,item\n3,4\n", "t1.csv")
    names, _, rows, *_ = opened(written(text, "a'b [1]/t[1].csv"))
    assert (names, rows) == (["us'er", 'it"em', "{x}"], [("u1", "i1", "1"), ("u2", "i2", "2")])
    written("user,item\n1,2\n", "run=3/t/day=1/part.csv")
    assert opened(tmp_path / "run=3" / "t")[0] == ["user", "item", "day"]
    parquet.write_table(pa.table([[1], [2], [3]], names=["User", "user", "item"]), tmp_path / "t.parquet")
    assert opened(tmp_path / "t.parquet")[0] == ["User", "user_2", "item"]
    parquet.write_table(pa.table([[1], [2], [3]], names=["user", "user", "item"]), tmp_path / "t.parquet")
    assert opened(tmp_path / "t.parquet")[0] == ["user", "user_2", "item"]
