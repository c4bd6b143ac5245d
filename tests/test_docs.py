"""What README and the pages of docs say: links resolve, commands are commands, blocks run as they stand there."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from l2q.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
RUN = ("RUN/index", "als_index")  # an index that a page has, for those that ask a run's


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as the site and GitHub make them: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower())) for heading in headings}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks in these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [(language, text) for language, text in found if language in languages]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a block, without its comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            dead.append(target)
        elif page.parent != ROOT and ROOT / "docs" not in there.parents:
            dead.append(f"{target} is no page of the site")
    assert not dead


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(
        str(page.relative_to(ROOT / "docs")) for page in PAGES if ROOT / "docs" in page.parents
    )


def test_the_site_builds(tmp_path):
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical absent; make docs installs it")
    for name in ("mkdocs.yml", "docs", "src", "conf"):  # away from site/ and .cache/ of the clone
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site" / "reference" / "api.html").read_text("utf-8")
    assert 'id="l2q.' in api
    pages = "".join(path.read_text("utf-8") for path in (tmp_path / "site").rglob("*.html"))
    fetched = (
        r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="(?:https?:)?//'
    )
    assert not re.findall(fetched, pages)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_commands(page, tmp_path, monkeypatch):
    """train.py's options compose, ``python -m l2q`` knows its arguments, scripts and targets are there."""
    monkeypatch.chdir(tmp_path)  # what an index or folder should be is absent
    extended = set(re.findall(r"^\+\+\+ b/conf/(\w+/\w+)\.yaml", page.read_text("utf-8"), re.MULTILINE))
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    known = {"python", "python3", "pip", "make", "wandb", ".venv/bin/pre-commit"}
    for _, text in blocks(page, "bash"):
        for words in commands(text):
            if "=" in words[0]:  # a variable of the shell
                assert text.count("$" + words[0].partition("=")[0]), words
                monkeypatch.setenv(*words[0].split("=", 1))
                continue
            assert words[0] in known, words
            if words[1].endswith(".py"):
                assert (ROOT / words[1]).is_file(), words
            if words[:2] == ["python", "train.py"]:
                composes([word for word in words[2:] if word not in ("-m", "--help")], extended)
            elif words[:3] == ["python", "-m", "l2q"] and (ROOT / "src/l2q/cli" / f"{words[3]}.py").exists():
                assert main(words[3:]) == 2  # parsed, then refused for want of files; argparse would exit
            elif words[0] == "make":
                assert words[1] in targets, words


def composes(words: list[str], extended: set[str]) -> None:
    """Hydra takes these overrides; of a sweep the first value. What a page adds to ``conf`` itself is left out."""
    overrides = []
    for override in OverridesParser.create().parse_overrides(
        [word.replace("$F", "model.bits=8") for word in words]
    ):
        value = (
            next(override.sweep_string_iterator())
            if override.is_sweep_override()
            else override.get_value_element_as_str()
        )
        if f"{override.key_or_group}/{value}" not in extended:
            overrides.append(f"{override.get_key_element()}={value}")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("config", overrides)


def test_the_figures_of_the_readme_are_those_of_the_stored_results():
    from l2q.report import markdown, read

    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 120
    sets = {"Gowalla": {}, "Yelp2018": {}}
    for table in markdown(read(ROOT / "outputs" / "results")).split("\n\n**"):
        for name in sets:
            if table.lstrip("*").startswith(name.lower()):
                for row in re.findall(
                    r"^\| `(\w+)`[^|]*\| ([\d,]+) \| 0(\.\d+)[^|]*\| 0(\.\d+)", table, re.MULTILINE
                ):
                    sets[name][row[:2]] = f"{row[2]} / {row[3]}"
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| ([^|]+) \| ([^|]+) \|$", readme, re.MULTILINE)
    assert len(rows) == 3
    for model, bits, *cells in rows:
        for name, cell, size in zip(sets, cells, (bits.split(", ") * 2)[:2], strict=True):
            assert cell.strip(" *") == sets[name][model, size]
