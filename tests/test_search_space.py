"""What options may be in a search, how that is spelled, and what a search says at its end."""

import json
from typing import Any

import optuna
import pytest
from runs import composed

from l2q.sweeps import search_report
from l2q.sweeps.search import Search
from l2q.sweeps.search_space import spelled


def settings(**changes: Any) -> Search:
    plain: dict[str, Any] = {
        "trials": 30,
        "metric": "val/recall_20",
        "direction": "maximize",
        "at_once": None,
    }
    plain |= {"sampler": {"seed": 0, "startup_trials": 10}, "pruning": None, "storage": None}
    return Search(**plain | {"space": {"seed": [0, 1]}} | changes)


def test_ranges_are_whole_where_they_are_written_so_and_values_have_four_digits():
    space = {
        "learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
        "model.num_layers": {"low": 1, "high": 3},
        "annealing": {"end": {"low": 0, "high": 1.0, "step": 0.25}},
        "model": {"layer_weights": [None, [1, 0.5]]},
    }
    ranges = settings(space=space).ranges()
    assert list(ranges) == ["learning_rate", "model.num_layers", "annealing.end", "model.layer_weights"]
    study = optuna.create_study()
    drawn = []
    for _ in range(40):
        trial = study.ask()
        for name, entry in ranges.items():
            entry.draw(trial, name)
        drawn.append([entry.value(trial.params[name]) for name, entry in ranges.items()])
    rates, layers, ends, weights = map(set, zip(*drawn, strict=True))
    assert all(1e-3 <= rate <= 0.1 and float(f"{rate:.4g}") == rate for rate in rates)
    assert layers == {1, 2, 3}
    assert ends == {0, 0.25, 0.5, 0.75, 1}
    assert weights == {"null", "[1,0.5]"}
    tight = settings(space={"learning_rate": {"low": 0.0123451, "high": 0.0123459}}).ranges()["learning_rate"]
    assert tight.value(0.0123455) == 0.0123455  # four digits would leave the range


@pytest.mark.parametrize(
    "value", [None, True, 3, -1.5, 1e-05, "rotation", "null", "true", "two words", "it's, (a) {b}", "", [1, ["a b"]],
              {"a": 1, "b": [None]}]
)  # fmt: skip
def test_values_are_spelled_as_the_command_line_reads_them(value):
    assert composed(f"+tags_of_mine={spelled(value)}")["tags_of_mine"] == value


def test_importance_and_pictures_tell_what_decided(tmp_path):
    """The metric follows the learning rate; the other option decides nothing."""
    search = settings(
        space={
            "learning_rate": {"low": 0.01, "high": 1.0},
            "model.transform": ["identity", "rotation", "learned"],
        }
    )
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(30):
        trial = study.ask()
        for name, entry in search.ranges().items():
            entry.draw(trial, name)
        trial.set_user_attr("command", f"python train.py seed={number}")
        value = -abs(trial.params["learning_rate"] - 0.3)
        trial.report(value, 1)
        if number % 3 == 2:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
    shares = search_report.importance(study)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["learning_rate"] > 0.6
    search_report.write(study, search, tmp_path, pictures=True)
    kept = json.loads((tmp_path / "search.json").read_text())
    assert kept["importance"] == shares
    assert kept["best"]["value"] == study.best_value
    for name in ("history.png", "importance.png"):
        assert (tmp_path / name).stat().st_size > 5000
    said = search_report.conclusion(study, search, tmp_path)
    assert said.startswith("30 trials: 20 done, 10 pruned")
    assert said.splitlines()[-1] == study.best_trial.user_attrs["command"]
