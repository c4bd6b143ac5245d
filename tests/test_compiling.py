"""Compiled kernels are kept where there is room, and never a reason to fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
CONF = SOURCE.parent / "conf"
SEARCH = """
import numpy as np
import l2q
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex

values = Rows(np.float32([[1, 0], [1, 2], [0, 3]]))
found = DenseIndex(Representations(values, values, (2,), np.ones(1, np.float32))).search(np.array([0]), k=2)
print(found[1].tolist(), l2q.__file__)
"""


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package below which no ``__pycache__`` can be made, not even by root."""
    shutil.copytree(SOURCE, tmp_path / "lib" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "lib" / "conf")
    for folder in [path for path in (tmp_path / "lib").rglob("*") if path.is_dir()]:
        (folder / "__pycache__").write_text("")
    return tmp_path / "lib" / "src"


def search(package: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "L2Q", "XDG"))}
    environment = known | {"HOME": "/dev/null", "PYTHONPATH": str(package)} | variables
    done = subprocess.run([sys.executable, "-c", SEARCH], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("]]")[0] == "[[0, 1"
    assert str(package) in done.stdout
    return done


@pytest.mark.slow
def test_where_neither_package_nor_home_can_be_written_kernels_are_kept_elsewhere(package, tmp_path):
    cache, scratch = tmp_path / "cache", tmp_path / "tmp"
    scratch.mkdir()
    for variables, place in (
        ({"L2Q_CACHE": str(cache), "TMPDIR": str(scratch)}, cache / "numba"),
        ({"TMPDIR": str(scratch)}, scratch / f"l2q-numba-{os.getuid()}"),
    ):
        done = search(package, **variables)
        said = f"compiled kernels are kept in {place}, since neither the package nor the home folder"
        assert done.stderr.count("compiled kernels") == done.stderr.count(said) == 1
        kept = {path: path.stat().st_mtime_ns for path in place.rglob("*.nb*")}
        assert kept
        search(package, **variables)
        assert {path: path.stat().st_mtime_ns for path in place.rglob("*.nb*")} == kept  # and found again
    assert os.listdir(scratch) == [f"l2q-numba-{os.getuid()}"]


@pytest.mark.slow
def test_where_nothing_can_be_written_kernels_are_compiled_every_time(package, tmp_path):
    """A folder in TMPDIR that others may write to is none: code is run from it."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    (scratch / f"l2q-numba-{os.getuid()}").mkdir()
    (scratch / f"l2q-numba-{os.getuid()}").chmod(0o777)
    done = search(package, L2Q_CACHE="/dev/null", TMPDIR=str(scratch))
    assert done.stderr.count("compiled kernels") == 1
    assert "every process compiles them anew; set L2Q_CACHE to a folder" in done.stderr
    assert not list(scratch.rglob("*.nb*"))


@pytest.mark.slow
def test_kept_kernels_that_cannot_be_read_or_written_are_compiled(tmp_path):
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    search(SOURCE, **variables)
    kept = list((tmp_path / "numba").rglob("*.nb*"))
    assert kept
    for content in (b"", b"\x80\x05 no pickle", None):
        for path in kept:
            path.write_bytes(path.read_bytes()[:100] if content is None else content)
        assert search(SOURCE, **variables).stderr == ""
    shutil.rmtree(tmp_path / "numba")
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n" + SEARCH
    environment = os.environ | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("[[0, 1]]"), done.stderr
    assert "compiled kernels cannot be kept in" in done.stderr


def test_every_kernel_is_kept_that_way():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.count("cache=True") == text.count("compiling.njit(") + text.count("skip_cache=True"), path
