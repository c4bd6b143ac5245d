"""Stored results and the commands behind them: each row's command still says what was run, and what needs more than a
choice of model and data set has an experiment file, whose header has the stored figures."""

import re
import shlex
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from l2q.report import read, spread

ROOT = Path(__file__).parents[1]
RUNS = read(ROOT / "outputs" / "results")
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
CHOICES = (
    "model=",
    "dataset=",
    "protocol=",
    "annealing=",
    "dataset.verify=",
    "model.bits=",
    "model.effort=",
    "model.embedding_dim=",
    "objective.teacher.effort=",
)


@cache
def composed(*words: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", list(words)), resolve=True)
    return config


def row(*words: str) -> tuple[str, str, int, str]:
    """Data set, model, columns or bits of a row, and protocol of a command."""
    config = composed(*words)
    model = config["model"]
    width = next((model[key] for key in ("embedding_dim", "bits", "dim") if key in model), 1)
    return config["dataset"]["name"], model["name"], width, config["protocol"]["name"]


def stored(run: dict[str, Any]) -> tuple[str, str, int, str]:
    return run["dataset"], run["model"], run["embedding_dim"], run["protocol"]


def command(run: dict[str, Any]) -> tuple[list[str], int]:
    """The options of a run's command without its seed, and the seed."""
    python, script, *words = shlex.split(run["command"])
    assert (python, script) == ("python", "train.py")
    seeds = [int(word.removeprefix("seed=")) for word in words if word.startswith("seed=")]
    return [word for word in words if not word.startswith("seed=")], (seeds or [0])[-1]


@pytest.mark.parametrize("folder", ["results", *sorted(p.name for p in ROOT.glob("outputs/ablations/*"))])
def test_the_command_of_every_stored_run_still_says_what_was_run(folder):
    place = ROOT / "outputs" / folder if folder == "results" else ROOT / "outputs" / "ablations" / folder
    for run in read(place):
        words, seed = command(run)
        assert (row(*words), seed) == (stored(run), run["seed"]), run["command"]


def experiment_of(run: dict[str, Any]) -> str | None:
    words = command(run)[0]
    return next((word.removeprefix("experiment=") for word in words if word.startswith("experiment=")), None)


def lines_of(name: str) -> list[str]:
    return (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text().splitlines()


OF_ALL_SETS = [
    name for name in EXPERIMENTS if not any("override /dataset" in line for line in lines_of(name))
]
OF_ONE_SET = [name for name in EXPERIMENTS if name not in OF_ALL_SETS]


@pytest.mark.parametrize("name", OF_ONE_SET)
def test_an_experiment_has_the_figures_of_its_row(name):
    same = [run for run in RUNS if stored(run) == row(f"experiment={name}")]
    # rows that are older than their experiment do not name it; those of the same bits by a choice never did
    group = [run for run in same if experiment_of(run) == name] or [
        run for run in same if experiment_of(run) is None
    ]
    assert group, f"no stored result of {row(f'experiment={name}')}"
    bits = round(8 * group[0]["item_bytes"])
    assert name == f"{group[0]['dataset']}_{group[0]['model']}_{bits}"
    recall, ndcg = (spread([run[f"test/packed/{key}_20"] for run in group]) for key in ("recall", "ndcg"))
    seconds = statistics.mean(run["fit_seconds"] + run["start_seconds"] for run in group)
    lines = lines_of(name)
    assert re.fullmatch(rf"# python train\.py (-m )?experiment={name}( .*)?", lines[1])
    assert lines[2:4] == [
        f"# test Recall@20 {recall}, NDCG@20 {ndcg}; {bits:,} bits per item",
        f"# {seconds:.0f} s of fitting; {group[0]['hardware']}",
    ]


def test_every_row_that_takes_more_than_a_choice_has_one_experiment():
    of = [row(f"experiment={name}") for name in OF_ONE_SET]
    assert len(set(of)) == len(of), "two experiments for one row"
    choices = (*CHOICES, *(f"experiment={name}" for name in OF_ALL_SETS))
    for run in RUNS:
        if stored(run) not in of:
            assert all(word.startswith(choices) for word in command(run)[0]), run["command"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_more_than_a_choice(name):
    """What ``model=... dataset=... protocol=...`` says needs no file."""
    dataset, model, _, protocol = row(f"experiment={name}")
    own = composed(f"experiment={name}")
    chosen = composed(f"model={model}", f"dataset={dataset}", f"protocol={protocol}")
    assert {**own, "dataset": None} != {**chosen, "dataset": None}


def test_every_experiment_that_is_named_exists():
    places = (
        "README.md",
        "CHANGELOG.md",
        "docs",
        "benchmarks",
        "notebooks",
        "outputs/ablations",
        "outputs/results",
    )
    texts = [
        file for place in places for file in [ROOT / place, *(ROOT / place).rglob("*")] if file.is_file()
    ]
    named = {
        name: file
        for file in texts
        if file.suffix in (".md", ".json", ".py", ".ipynb")
        for name in re.findall(r"\bexperiment=(\w+)", file.read_text("utf-8"))
    }
    assert named
    assert {name: file for name, file in named.items() if name not in EXPERIMENTS} == {}
