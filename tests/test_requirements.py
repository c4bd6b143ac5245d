"""Ranges in pyproject.toml and exact versions in the requirements files name the same packages."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# what tests run, they need: every extra but that of the documentation
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED = [wanted for extra, ranges in EXTRAS.items() if extra != "docs" for wanted in ranges]


@pytest.mark.parametrize(
    ("file", "ranges"),
    [
        ("requirements.txt", PROJECT["dependencies"]),
        ("requirements-test.txt", TESTED),
        ("requirements-docs.txt", PROJECT["optional-dependencies"]["docs"]),
    ],
)
def test_every_direct_dependency_is_pinned_within_its_range(file, ranges):
    lines = (ROOT / file).read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith(("#", "-")))
    wanted = {requirement.name: requirement.specifier for requirement in map(Requirement, ranges)}
    assert pins.keys() == wanted.keys()
    assert [name for name, pin in pins.items() if pin not in wanted[name]] == []
