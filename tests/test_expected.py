"""What a fit is expected to take is said before it begins, from one place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import composed, table

import l2q
from l2q import settings
from l2q.interactions import Interactions
from l2q.learning import expected
from l2q.learning import fit as fitting
from l2q.learning import run as run_module
from l2q.learning.expected import Cost, Model, of_a_fit
from l2q.learning.run import Run
from l2q.progress import span

MODELS = {
    "l2q_plus": Model(Cost(10, 2, 30), Cost(500, 10, 100), "a set"),
    "l2q_plus effort=best": Model(Cost(400, 0, 0), None, "a set"),
}


@pytest.fixture(autouse=True)
def _costs(monkeypatch):
    monkeypatch.setattr(expected, "MODELS", MODELS)


def line(
    rows: int = 5000,
    pairs: int = 1_000_000,
    goes_on: bool = False,
    threads: int = 2,
    weights: int = 0,
    holdout: str | None = None,
    **changes,
) -> str | None:
    model = settings.compose(model="l2q_plus")["model"]
    return of_a_fit(model | changes, rows, pairs, goes_on, threads, weights, holdout)


def test_seconds_and_memory_by_hand():
    assert line() == "expected: the fit takes about 25 seconds on two free cores and 650.0 MiB of memory"
    assert line(threads=16) == line()
    assert "about 50 seconds on a free core and" in line(threads=1)
    assert "takes at most about 25 seconds" in line(bits=64)
    assert line(effort="best") == "expected: the fit takes about 3.3 minutes on two free cores"
    both = span(expected.BOTH * 200)
    assert line(effort="best", holdout="cluster") == f"expected: the fit takes about {both} on two free cores"
    assert line(holdout="cluster") == line(holdout="random") == line()
    fraction = expected.GOES_ON * 25
    assert f"about {fraction:.0f} seconds on two free cores" in line(goes_on=True)
    assert line(goes_on=True, effort="best") == line(goes_on=True)
    assert line(halvings=2.0) == line()


def test_what_trying_weights_takes_is_in_it(monkeypatch):
    monkeypatch.setattr(expected, "WEIGHTS", Cost(1, 2, 30))
    # 50 / 2 and (1 + 10 + 15) / 1.3, of half a million pairs
    assert "takes about 45 seconds on two" in line(weights=1)
    assert "takes about 1.3 minutes on a free core" in line(weights=1, threads=1)
    assert "takes about 1.1 minutes on two" in line(weights=2)
    assert line(weights=2, goes_on=True) == line(goes_on=True)


def test_what_nobody_measured_is_not_said():
    assert line(length=80) is None
    assert line(bits=4096) is None
    assert line(name="popularity") is None


def test_a_run_says_it_before_it_begins(tmp_path, caplog):
    caplog.set_level("INFO", "l2q")
    Run(composed("model=l2q_plus", *table(tmp_path / "events.csv")), tmp_path / "run")
    assert "expected: the fit takes about " in caplog.text
    caplog.clear()
    Run(composed("model=l2q_plus", "model.length=80", *table(tmp_path / "events.csv")), tmp_path / "run")
    assert "expected" not in caplog.text


def test_a_fit_from_python_says_it(monkeypatch, caplog):
    caplog.set_level("INFO", "l2q")
    said = []
    monkeypatch.setattr(fitting, "fit_model", lambda *_: said.append(caplog.text) or 1 / 0)
    train = Interactions.from_pairs([0, 0, 1, 1], [0, 1, 1, 2], 2, 3)
    with pytest.raises(ZeroDivisionError):
        l2q.fit(train, "l2q_plus")
    assert "expected: the fit takes about " in said[0]


@pytest.mark.parametrize(
    ("changes", "seconds"), [({}, 313), ({"halvings": 0.0}, 159), ({"halvings": 0.0, "value_power": 1.0}, 5)]
)
def test_weights_are_in_it_where_they_are_tried(monkeypatch, changes, seconds):
    monkeypatch.setattr(expected, "WEIGHTS", Cost(200, 0, 0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    plain = Interactions.from_pairs([0, 0, 1, 1], [0, 1, 1, 2], 2, 3)
    train = replace(plain, times=np.arange(4.0), values=np.ones(4, np.float32), ahead=True)
    config = settings.compose({"model": changes}, model="l2q_plus")
    assert f"takes about {span(seconds)} on two" in run_module.expected(train, config)
    assert "takes about 5 seconds on two" in run_module.expected(plain, config)


def test_a_training_by_bpr_names_the_recipe_that_ranks_better(tmp_path):
    train = Interactions.from_pairs([0, 0, 1], [0, 1, 1], 2, 2)

    def said(*words: str) -> str:
        return run_module.expected(train, composed(*table(tmp_path / "events.csv"), *words))

    assert "of 1 steps of" in said("model=lightgcn")
    assert "experiment=distilled takes 40" in said("model=l2q_anl")
    for words in (["model=lightgcn"], ["model=l2q_anl", "objective=softmax"], ["experiment=distilled"]):
        assert "experiment=distilled" not in said(*words)
