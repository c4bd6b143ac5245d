"""What is said of a data set, of a model, and of both together stands in one file each."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from l2q.data.sources import Source

CONF = Path(__file__).parents[1] / "conf"
RECIPES = sorted(path.relative_to(CONF / "recipe").with_suffix("") for path in CONF.glob("recipe/*/*/*.yaml"))


def composed(*words: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", list(words)))
    return config


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("dataset", names("dataset"))
def test_a_data_set_says_where_it_is_and_nothing_else(dataset):
    assert composed(f"dataset={dataset}")["dataset"].keys() <= {field.name for field in fields(Source)}


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_says_what_differs_from_the_settings_of_its_model(recipe):
    objective, dataset, model = recipe.parts
    assert objective in names("objective")
    assert dataset in names("dataset")
    assert model in names("model")
    chosen = [f"objective={objective}", f"dataset={dataset}", f"model={model}"]
    own, suited = composed(*chosen, "~recipe"), composed(*chosen)

    def check(said: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
        assert said
        for key, value in said.items():
            if isinstance(value, dict):
                check(value, before[key], after[key])
            else:
                assert before[key] != value == after[key], key

    said: Any = OmegaConf.to_container(OmegaConf.load(CONF / "recipe" / f"{recipe}.yaml"))
    check(said, own, suited)


def test_the_recipe_follows_the_set_and_the_model_wherever_they_are_chosen(tmp_path):
    usual = composed("model=lightgcn", "dataset=table")
    suited = composed("model=lightgcn", "dataset=gowalla")
    assert (usual["epochs"], usual["batch_size"], usual["learning_rate"]) == (60, 32768, 0.01)
    assert (suited["epochs"], suited["batch_size"], suited["learning_rate"]) == (1000, 65536, 0.05)
    assert (usual["objective"]["l2"], suited["objective"]["l2"]) == (1e-3, 1e-4)
    # by the defaults, by an experiment, and not where the command line says otherwise
    assert composed()["epochs"] == composed("model=l2q_anl", "dataset=debian")["epochs"] == 30
    assert composed("experiment=gowalla_lightgcn_2048")["learning_rate"] == 0.05
    assert composed("experiment=gowalla_lightgcn_2048", "dataset=debian")["learning_rate"] == 0.02
    assert composed("experiment=debian_last_layer_864")["learning_rate"] == 0.005  # the experiment's own
    assert composed("model=lightgcn", "dataset=gowalla", "learning_rate=0.5")["learning_rate"] == 0.5
    assert composed("model=lightgcn", "dataset=gowalla", "~recipe") == usual | {
        key: suited[key] for key in ("dataset", "protocol")
    }
    assert composed("model=spectral", "dataset=gowalla")["epochs"] == 0  # nothing is trained
    # what suits one loss says nothing of another
    assert composed("model=l2q", "objective=bpr", "dataset=debian")["objective"]["temperature"] == 2
    assert composed("model=l2q", "objective=softmax", "dataset=debian")["epochs"] == 20
