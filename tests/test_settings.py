"""Settings from Python are those that Hydra composes for ``train.py``."""

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT

import l2q
from l2q import settings
from l2q.errors import L2QError
from l2q.learning import trainer
from l2q.learning.configuration import Configuration, Protocol
from l2q.learning.datamodule import InteractionsModule
from l2q.learning.recommender import Recommender
from l2q.models.annealing import Annealing
from l2q.models.encoder import Encoder
from l2q.models.quantizers import Quantizer
from l2q.sweeps.search import Search

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
        "objective": "softmax",
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
    values = {"_target_": "l2q.models.annealing.Annealing", "name": "a", "curve": "linear", "end": 1.0}
    found = settings.build(values | {"relaxation": "tanh"}, "annealing")
    assert found == Annealing(name="a", curve="linear", relaxation="tanh", end=1.0)
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


def parts(values: Any) -> Iterator[dict[str, Any]]:
    """A mapping of a file, and those in it."""
    if isinstance(values, dict):
        yield values
        for inner in values.values():
            yield from parts(inner)


def given() -> dict[Any, dict[str, list[Any]]]:
    """By class or function that ``conf/`` builds: every option that a file gives it, with the values."""
    found: dict[Any, dict[str, list[Any]]] = {}

    def take(made: Any, values: dict[str, Any]) -> None:
        own = found.setdefault(made, {})
        known = inspect.signature(made).parameters
        function = made if dataclasses.is_dataclass(made) or inspect.isfunction(made) else made.__init__
        kinds = typing.get_type_hints(function)
        for key, value in values.items():
            if key not in known:
                continue
            own.setdefault(key, []).append(value)
            for kind in (kinds[key], *typing.get_args(kinds[key])):  # a group whose class the type names
                if isinstance(value, dict) and "_target_" not in value and dataclasses.is_dataclass(kind):
                    take(kind, value)

    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        values: Any = OmegaConf.to_container(OmegaConf.load(path))
        group = path.parent.name
        for part in parts(values):
            if part.get("_target_", "").startswith("l2q."):
                take(settings.locate(part["_target_"]), part)
        if group in NO_TARGET:
            take(NO_TARGET[group], values)
        if group == "model" and "model" in values:  # trained: the file stands at the top
            take(Encoder, values["model"])
        if "search" in values:
            take(Search, values["search"])
        if path.name == "config.yaml":
            for made in (Configuration, Recommender, InteractionsModule, Encoder, l2q.fit, l2q.quantize):
                take(made, values)
            take(l2q.evaluate, values["eval"])
    return found


NO_TARGET = {"protocol": Protocol, "trainer": trainer.taken}
"""What takes the groups whose ``_target_`` is none of ours; that of the data sets is left to the tests of sources."""

ABSENT = {
    # where a file leaves the option out; the default says that there is none, or what the option starts from
    (Protocol, "split"): "final holds nothing back",
    (Protocol, "fraction"): "final holds nothing back",
    (Protocol, "split_seed"): "final holds nothing back",
    (Protocol, "patience"): "final monitors nothing",
    (Annealing, "end"): "the constant curve has none",
    (Annealing, "hold"): "of the geometric curve alone",
    (Annealing, "minimum"): "of the geometric curve alone",
    (Annealing, "stages"): "of the hashnet curve alone",
    (Annealing, "switch"): "of the step curve alone",
    (trainer.taken, "log_every_n_steps"): "None: Lightning's own",
    (trainer.taken, "deterministic"): "None: Lightning's own",
    (Encoder, "residual"): "models that take the mean of their layers have none",
    (Encoder, "mixing"): "likewise",
    (Encoder, "popularity"): "None: lengths as trained; codes without scales have no other ones",
    (Encoder, "rotation_blocks"): "None: a rotation is one; others rotate nothing, or not by blocks",
    (Quantizer, "normalize"): "the straight-through derivative is the same everywhere",
    (Quantizer, "clip"): "the straight-through derivative is the same everywhere",
    (Quantizer, "scale_dtype"): "codes without scales have none",
    # Python callers alone: None takes what conf says
    (l2q.fit, "seed"): "None: as in conf/config.yaml",
    (l2q.fit, "new_users"): "None: as in conf/config.yaml",
    (l2q.quantize, "seed"): "None: as in conf/config.yaml",
    (l2q.evaluate, "memory_mb"): "None: as in conf/config.yaml",
    (l2q.fit, "start"): "None: from nothing, as conf says of folders; an index itself is no value of conf",
}
NOTHING = {
    (l2q.fit, "start"),
    (Encoder, "popularity"),
    (Encoder, "rotation_blocks"),
}  # null in conf and None in Python both say that there is none


def test_a_default_stands_in_conf_or_in_a_signature_not_in_both():
    defaults = {
        (made, name): (signature[name].default, values)
        for made, options in given().items()
        for signature in [inspect.signature(made).parameters]
        for name, values in options.items()
        if signature[name].default is not inspect.Parameter.empty
    }
    assert set(defaults) == set(ABSENT)
    twice = {key for key, (default, values) in defaults.items() if default in values}
    assert twice == NOTHING
