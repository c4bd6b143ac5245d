"""Settings from Python are those that Hydra composes for ``train.py``."""

import dataclasses
from itertools import product
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT

from l2q import settings
from l2q.errors import L2QError
from l2q.models.annealing import Annealing
from l2q.models.quantizers import Quantizer

LINE = ("dataset", "logger", "callbacks", *settings.COMMAND_LINE)  # what the command line alone has

CHOICES = [
    {},
    *({"model": model} for model in settings.choices("model")),
    *(
        {"model": model, group: name}
        for model, group in product(("l2q_anl", "l2q", "lightgcn"), ("annealing", "objective"))
        for name in settings.choices(group)
    ),
    *({"protocol": name} for name in settings.choices("protocol")),
    *({"model": "l2q", "initialization": name} for name in settings.choices("initialization")),
    {
        "model": "l2q_anl",
        "annealing": "guidance",
        "objective": "sampled_softmax",
        "protocol": "final",
        "initialization": "spectral",
    },
]


def by_hydra(*words: str) -> dict[str, Any]:
    """What the command line makes of ``words``, without what it alone has."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", ["~recipe", *words])
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key not in LINE])
    found: Any = OmegaConf.to_container(kept, resolve=True)
    return found


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: ",".join(map("=".join, chosen.items())) or "-")
def test_every_choice_is_composed_as_hydra_does(chosen):
    found = settings.compose(**chosen)
    assert {key: value for key, value in found.items() if key not in LINE} == by_hydra(
        *map("=".join, chosen.items())
    )


def test_changes_have_the_last_word_as_on_the_command_line():
    changes = {"epochs": 7, "model": {"num_layers": 3}, "objective": {"l2": 0.5}, "annealing": {"end": 2.0}}
    found = settings.compose(changes, model="l2q_anl", annealing="mixture")
    words = ["epochs=7", "model.num_layers=3", "objective.l2=0.5", "annealing.end=2.0"]
    expected = by_hydra("model=l2q_anl", "annealing=mixture", *words)
    assert {key: value for key, value in found.items() if key not in LINE} == expected
    # what follows from a change follows
    assert found["trainer"]["max_epochs"] == 7
    assert found["model"]["quantizer"]["relaxation"] == "mixture"
    assert settings.compose(model="l2q_anl")["epochs"] != 7


def test_groups_and_what_they_offer():
    assert settings.choices("model") == [
        *("l2q", "l2q_anl", "l2q_plus", "last_layer"),
        *("lightgcn", "popularity", "spectral"),
    ]
    for group in settings.GROUPS:
        files = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert settings.choices(group) == files
    assert settings.folder() == ROOT / "conf"
    assert settings.defaults()["eval"]["ks"] == [10, 20, 50]


def test_a_preset_is_one_file_of_one_group():
    assert settings.preset("model/spectral") == {
        "name": "spectral",
        "_target_": "l2q.fitted.baselines.Spectral",
        "dim": 256,
        "gamma_user": 0.5,
        "gamma_item": 0.5,
    }
    assert settings.preset("annealing/none")["curve"] == "constant"
    assert "embedding_dim" in settings.preset("model/lightgcn")  # its keys stand at the top of the file
    assert settings.preset("dataset/debian")["counts"]["users"] == 16600


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"model": "lightgnc"}, "model=lightgnc is unknown; use l2q, l2q_anl, l2q_plus"),
        ({"annealing": "fast"}, "annealing=fast is unknown; use cosine, geometric"),
        ({"protocol": "leave_one_out"}, "protocol=leave_one_out is unknown; use auto, final, holdout"),
    ],
)
def test_an_unknown_name_is_told_what_there_is(chosen, said):
    with pytest.raises(L2QError, match=said) as caught:
        settings.compose(**chosen)
    assert "\n" not in str(caught.value)


def test_a_change_of_what_there_is_not_is_refused():
    with pytest.raises(L2QError, match=r"epoch: there is no such option; there are .*epochs"):
        settings.compose({"epoch": 3})


def test_an_object_is_built_of_its_values_and_of_the_objects_in_them():
    values = {"_target_": "l2q.models.annealing.Annealing", "name": "a", "curve": "linear"}
    found = settings.build(values | {"relaxation": "tanh"}, "annealing")
    assert found == Annealing(name="a", curve="linear", relaxation="tanh")
    assert settings.build(values, "annealing", relaxation="tanh") == found
    pair = {"_target_": "test_settings.Pair", "first": values | {"relaxation": "tanh"}, "second": {"a": 1}}
    assert settings.build(pair, "pair") == Pair(found, {"a": 1})
    quantizer = settings.build(settings.compose(model="l2q_anl")["model"]["quantizer"], "model.quantizer")
    assert isinstance(quantizer, Quantizer)


@dataclasses.dataclass
class Pair:
    first: Any
    second: Any


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"_target_": "test_settings.Pair", "frist": 1}, r"group\.frist: there is no such option; did you mean first"),
        ({"_target_": "test_settings.Pair", "third": 1, "first": 1}, r"group\.third: there is no such option"),
        (
            {"_target_": "test_settings.Pair", "first": {"_target_": "test_settings.Pair", "x": 1}},
            r"group\.first\.x: there is no such option; there are first, second",
        ),
        ({"_target_": "l2q.models.nothing.Here"}, r"_target_=l2q\.models\.nothing\.Here cannot be found"),
        ({"_target_": "l2q.models.annealing.Nothing"}, r"Annealing.*Nothing|annealing\.Nothing cannot be found"),
        ({"_target_": "nothing"}, "_target_=nothing cannot be found"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_said_by_its_name_on_the_command_line(values, said):
    with pytest.raises(L2QError, match=said) as caught:
        settings.build(values, "group")
    assert "\n" not in str(caught.value)
