"""A short round of ``make faults``: no fault does harm. At full size they take hours (docs/reliability.md)."""

import subprocess
import sys

import numpy as np
import pytest
from faults import frame
from faults.frame import RIGHT, TRACEBACK, WRONG, Found, Tally
from faults.mutations import MUTATIONS, mutated
from runs import ROOT, environment

KINDS = ("kills", "signals", "resources", "network", "service", "guided", "determinism", "soak")


QUICK = {
    "corruptions": ["index", "manifest", "names", "csv", "parquet", "arrow", "gzip", "zip", "split_ids"],
    "fuzz": ["npy", "ids", "names", "manifest", "pairs"],
}


def faults(home, *words: str) -> list[str]:
    """`make faults`, in a process of its own; its lines."""
    command = [sys.executable, "-m", "faults", *words]
    done = subprocess.run(command, cwd=ROOT / "tests", env=environment(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_few_corruptions_and_fuzzed_inputs_do_no_harm(tmp_path):
    """Of the kinds of files and inputs that take milliseconds."""
    only = ",".join(f"{kind}.{case}" for kind, cases in QUICK.items() for case in cases)
    lines = faults(tmp_path, "--only", only, "--count", "45")
    for kind, line in zip(QUICK, lines, strict=True):
        assert line.startswith(f"{kind}: ")
        assert "0 silent wrong, 0 tracebacks" in line


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_faults_of_each_kind_do_no_harm(kind, tmp_path):
    (line,) = faults(tmp_path, "--only", kind, "--short")
    assert line.startswith(f"{kind}: ")
    assert "0 silent wrong, 0 tracebacks" in line


def test_every_mutation_changes_bytes():
    rng = np.random.default_rng(0)
    for way in MUTATIONS:
        assert any(
            way(rng, b"user,item\nu1,i2\nu3,i4\n") != b"user,item\nu1,i2\nu3,i4\n" for _ in range(9)
        ), way
    assert all(mutated(rng, data)[0] != data for data in (b"", b"a", b"abc\n1") for _ in range(50))


class Harmful:
    """A kind whose trials end in every way there is."""

    __name__ = "faults.harmful"
    FULL = SHORT = 5
    CASES = {  # noqa: RUF012
        "right": lambda setting: Found(RIGHT),
        "wrong": lambda setting: Found(WRONG, "other figures"),
        "raises": lambda setting: [][1],
        "dies": lambda setting: __import__("os").kill(__import__("os").getpid(), 9),
        "hangs": lambda setting: __import__("time").sleep(60),
    }


def test_harm_is_counted_and_the_trials_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(frame.Worker, "LIMIT", 1.0)
    tally = frame.run(Harmful(), seed=0, count=6, folder=tmp_path, quiet=True)  # type: ignore[arg-type]
    assert tally.line() == "harmful: 6 tried, 2 right, 0 refused by name, 2 silent wrong, 2 tracebacks"
    said = "\n".join(tally.bad)
    for part in ("other figures", "IndexError", "the process ended by SIGKILL", "no end in 1 s"):
        assert part in said


def test_a_tally_counts_lists():
    tally = Tally("kind")
    tally.add("a", 0, [Found(RIGHT), Found(TRACEBACK, "x")])
    tally.add("b", 1, [])
    assert tally.line("a") == "kind.a: 2 tried, 1 right, 0 refused by name, 0 silent wrong, 1 tracebacks"
    assert tally.line("b").startswith("kind.b: 0 tried")
