"""Files and folders are replaced whole or not at all, and nothing is left beside them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from l2q.files import aside, replaced_file, replaced_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there", [False, True])
def test_a_file_appears_at_the_end_of_writing(tmp_path, there):
    path = tmp_path / "metrics.json"
    if there:
        path.write_text("old")
    with replaced_file(path) as fresh:
        fresh.write_text("ne")
        with fresh.open("a") as file:
            file.write("w\n")
        assert fresh.parent == tmp_path  # a file of another file system could not be renamed in one step
        assert (path.read_text() if path.exists() else None) == ("old" if there else None)
    assert path.read_bytes() == b"new\n"
    assert names(tmp_path) == ["metrics.json"]


def test_bytes_stay_as_they_are(tmp_path):
    content = bytes(range(256)) + b"\r\n\n"
    with replaced_file(str(tmp_path / "codes.npy")) as fresh, fresh.open("wb") as file:
        file.write(content)
    assert (tmp_path / "codes.npy").read_bytes() == content


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_an_exception_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "history.csv"
    path.write_text("old")

    def write() -> None:
        with replaced_file(path) as fresh, fresh.open("w") as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["history.csv"]


def test_an_exception_before_anything_is_written_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(ValueError, match="nothing yet"), replaced_file(tmp_path / "history.csv"):
        raise ValueError("nothing yet")
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "absent" / "history.csv") as fresh:
        fresh.write_text("")
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_written_over(tmp_path):
    with replaced_file(tmp_path / "config.json") as fresh:
        fresh.write_text("")
    fresh.write_text("the half of a file, long")
    with replaced_file(tmp_path / "config.json") as fresh, fresh.open("w") as file:
        file.write("short")
    assert (tmp_path / "config.json").read_text() == "short"
    assert names(tmp_path) == ["config.json"]


def test_many_writers_do_not_write_into_each_other(tmp_path):
    path = tmp_path / "cache.npz"
    with replaced_file(path) as first, first.open("w") as one:
        with replaced_file(path) as second, second.open("w") as two:
            one.write("1" * 50)
            two.write("2" * 50)
        assert path.read_text() == "2" * 50
    assert path.read_text() == "1" * 50

    def write(value: int) -> None:
        with replaced_file(path) as fresh:
            fresh.write_text(str(value) * 1000)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(10)))
    assert len(path.read_text()) == 1000
    assert len(set(path.read_text())) == 1
    assert names(tmp_path) == ["cache.npz"]


def test_a_new_file_has_the_rights_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    with replaced_file(tmp_path / "file") as fresh:
        fresh.write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


WRITER = """
import sys, numpy as np, l2q
from l2q.representations import Representations
from l2q.interactions import Interactions
size = int(sys.argv[2])
rows = np.ones((size, 8), np.float32)
train = Interactions.from_pairs(range(size), range(size), size, size)
index = l2q.Index.of(Representations.floats(rows, rows), train)
for _ in range(60):
    index.save(sys.argv[1])
"""


def test_processes_that_save_into_one_folder_leave_a_whole_index(tmp_path):
    """Each of them in turn; files of two in one folder would be no index any more."""
    from l2q.errors import L2QError
    from l2q.retrieval.storage import load_index

    words = [sys.executable, "-c", WRITER, str(tmp_path / "index")]
    writers = [subprocess.Popen([*words, size], stderr=subprocess.PIPE, text=True) for size in ("30", "31")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        with suppress(L2QError):  # before the first is there
            seen.add(load_index(tmp_path / "index").num_users)
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 2
    assert load_index(tmp_path / "index").num_users in (30, 31)
    assert seen <= {30, 31}
    assert names(tmp_path) == ["index"]


def fill(folder: Path, content: str) -> None:
    with replaced_folder(folder) as fresh:
        assert names(fresh) == []
        (fresh / "a.txt").write_text(content)


def test_a_folder_is_replaced_with_all_that_it_held(tmp_path):
    folder = tmp_path / "runs" / "index"  # the folders above are made
    fill(folder, "old")
    (folder / "b.txt").write_text("of the old one alone")
    fill(folder, "new")
    assert names(folder) == ["a.txt"]
    assert (folder / "a.txt").read_text() == "new"
    assert names(folder.parent) == ["index"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_folder_and_leaves_nothing(tmp_path, error, there):
    folder = tmp_path / "index"
    if there:
        fill(folder, "old")

    def write() -> None:
        with replaced_folder(folder) as fresh:
            (fresh / "a.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == (["index"] if there else [])
    assert not there or (folder / "a.txt").read_text() == "old"


def test_a_folder_whose_second_rename_fails_is_put_back(tmp_path, monkeypatch):
    folder, rename = tmp_path / "index", os.replace
    fill(folder, "old")

    def fails(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".new"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="Input/output"):
        fill(folder, "new")
    assert (folder / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["index"]


def test_a_folder_killed_between_its_renames_is_put_back_first(tmp_path):
    folder = tmp_path / "index"
    fill(folder, "old")
    os.replace(folder, aside(folder))
    with replaced_folder(folder) as fresh:
        assert (folder / "a.txt").read_text() == "old"
        (fresh / "a.txt").write_text("new")
    assert (folder / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["index"]
