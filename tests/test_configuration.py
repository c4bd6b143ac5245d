"""What a run makes of its settings: what it settles for, and what it refuses in one line before anything runs."""

import re
from pathlib import Path

import pytest
import yaml
from runs import ROOT, composed, table

from l2q import settings
from l2q.errors import L2QError
from l2q.interactions import Dataset, Interactions
from l2q.learning.configuration import check_against, hashed, settle
from l2q.learning.run import Run, closed_form


@pytest.mark.parametrize("model", ["l2q", "last_layer", "l2q_anl"])
def test_a_quantizer_gets_the_relaxation_of_the_annealing(model):
    config = composed(f"model={model}", "annealing=guidance")
    assert config["model"]["quantizer"]["relaxation"] == "guidance"


@pytest.mark.parametrize("model", settings.choices("model"))
def test_models_that_are_fitted_at_once_have_no_epochs(model):
    config = composed(f"model={model}")
    fitted = closed_form(config)
    assert (fitted is not None) == (model in ("popularity", "spectral", "l2q_plus"))
    assert (config["epochs"] == 0) == (fitted is not None)


@pytest.mark.parametrize(
    ("words", "settled"),
    [
        ("model=l2q_plus dataset=table", "final"),
        ("model=popularity dataset=table", "final"),
        ("model=l2q_plus dataset=table test=false", "holdout"),
        ("model=l2q_plus dataset=table protocol=holdout", "holdout"),
        ("model=lightgcn dataset=table", "holdout"),
        ("model=lightgcn dataset=table protocol=final", "final"),
        ("model=l2q_plus dataset=gowalla", "holdout"),
        ("experiment=gowalla_l2q_plus_784", "final"),
        ("model=l2q_plus dataset=table dataset.test_fraction=0", "final"),
        ("model=l2q_plus dataset=table dataset.test_fraction=0 test=false", "final"),
        ("model=lightgcn dataset=table dataset.test_fraction=0", "holdout"),
        ("model=lightgcn dataset=table dataset.test_fraction=0 protocol=final", "final"),
    ],
)
def test_the_protocol_that_a_run_settles_for(words, settled):
    config = composed(*words.split(), "dataset.dir=events.csv")
    settle(config, fitted=closed_form(config) is not None)
    assert config["protocol"]["name"] == settled
    assert ("fraction" in config["protocol"]) == (settled == "holdout")
    assert config["test"] == ("test_fraction=0" not in words and "test=false" not in words)


@pytest.mark.parametrize(("ks", "kept"), [([], [7]), (["eval.ks=[3,20]"], [3]), (["eval.ks=[20]"], None)])
def test_a_catalogue_of_fewer_than_ten_items_has_the_whole_as_its_cut_off(ks, kept):
    """Where the configuration's own cut-offs stand; what somebody asked for and cannot get is refused."""
    train = Interactions.from_pairs([0, 1], [0, 6], 2, 7)
    config = {"eval": composed(*ks)["eval"], "test": True}
    if kept is None:
        with pytest.raises(L2QError, match=r"eval.ks=\[20\]: .* from 1 to 7, .* such as eval.ks=\[7\]"):
            check_against(config, Dataset("tiny", train, train))
        return
    with pytest.warns(UserWarning, match="tiny has 7 items"):
        check_against(config, Dataset("tiny", train, train))
    assert config["eval"]["ks"] == kept


def test_every_named_set_is_configured():
    for path in (ROOT / "conf" / "dataset").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        assert config["name"].partition("_${")[0] == path.stem  # a table's has its file's behind it


def test_the_hash_of_the_settings_is_of_what_makes_figures():
    base = hashed(composed())
    same = ["logger=none", "eval.memory_mb=1", "dataset.dir=elsewhere", "ckpt_path=last.ckpt"]
    other = ["seed=1", "model.num_layers=1", "eval.ks=[5]", "protocol.patience=1", "dataset.split_seed=1"]
    assert [hashed(composed(word)) for word in same] == [base] * len(same)
    hashes = [hashed(composed(f"+{word}" if "split_seed" in word else word)) for word in other]
    assert len({base, *hashes}) == 1 + len(other)


WHOLE, COUNT, SWITCH = ("must be a whole number of at least 0", "must be a whole number of at least 1",
                        "must be true or false")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # of the wrong kind
        ("test=off", f"test=off {SWITCH}"),  # a word to Hydra, and true to Python
        ("test=no", f"test=no {SWITCH}"),
        ("fit=maybe", f"fit=maybe {SWITCH}"),
        ("new_users=0", f"new_users=0 {SWITCH}"),
        ("dataset.verify=yes", f"dataset.verify=yes {SWITCH}"),
        ("seed=-1", f"seed=-1 {WHOLE}"),
        ("seed=1.5", f"seed=1.5 {WHOLE}"),
        ("seed=4294967296", f"seed=4294967296 {WHOLE} and below 4294967296"),
        ("batch_size=10.5", f"batch_size=10.5 {COUNT}"),
        ("epochs=abc", f"epochs=abc {WHOLE}"),
        ("epochs=-1", f"epochs=-1 {WHOLE}"),
        ("eval.memory_mb=-5", f"eval.memory_mb=-5 {COUNT}"),
        ("model.embedding_dim=8.5", f"model.embedding_dim=8.5 {COUNT}"),
        ("model.num_layers=-1", f"model.num_layers=-1 {WHOLE}"),
        ("protocol.every_n_epochs=0", f"protocol.every_n_epochs=0 {COUNT}"),
        ("protocol.patience=abc", f"protocol.patience=abc {WHOLE}"),
        ("protocol.fraction=abc", "protocol.fraction=abc must be a number above 0 and below 1"),
        ("protocol.split=banana", "protocol.split=banana must be one of random, cluster"),
        ("~protocol.patience", "protocol.patience is not given; protocol=holdout needs it"),
        ("protocol.split=null", "protocol.split is not given; protocol=holdout needs it"),
        ("learning_rate=abc", "learning_rate=abc must be a number above 0"),
        ("learning_rate=-1", "learning_rate=-1 must be a number above 0"),
        ("schedule=banana", "schedule=banana must be one of constant, cosine"),
        ("objective.l2=abc", "objective.l2=abc must be a number of at least 0"),
        ("annealing.end=abc", "annealing.end=abc must be a number above 0"),
        ("annealing.curve=banana", "annealing.curve=banana must be one of constant, linear, cosine"),
        ("model.residual=abc", "model.residual=abc must be a number"),
        ("ckpt_path=5", "ckpt_path=5 must be"),
        ("trainer.max_epochs=2.5", f"trainer.max_epochs=2.5 {WHOLE}"),
        ("trainer.max_epochs=-1", f"trainer.max_epochs=-1 {WHOLE}"),
        ("model.quantizer.clip=abc", "model.quantizer.clip=abc must be a number above 0"),
        ("model.quantizer.estimator=magic", "model.quantizer.estimator=magic must be one of ste, clipped"),
        ("model.initialization.std=abc", "model.initialization.std=abc must be a number of at least 0"),
        ("model.transform=magic", "model.transform=magic must be one of identity, rotation"),
        ("eval.ks=20", "eval.ks=20 must be a list, each a whole number of at least 1"),
        ("eval.ks=[0]", "must be a list, each a whole number of at least 1"),
        ("model=l2q_plus model.bits=0", f"model.bits=0 {COUNT} and at most 8192"),
        (
            "model=l2q_plus model.split=banana",
            "model.split=banana must be one of random, time, cluster or null",
        ),
        ("model=l2q_plus model.descent.rounds=0", f"descent.rounds=0 {COUNT}"),
        ("model=l2q_plus model.embeddings.dim=0", f"embeddings.dim=0 {COUNT}"),
        ("model=spectral model.dim=0", f"model.dim=0 {COUNT}"),
        # that nothing reads, however it was added
        ("+epoch=3", "epoch: there is no such option; did you mean epochs?"),
        ("++epoch=3", "epoch: there is no such option; did you mean epochs?"),
        ("+colour=red", "colour: there is no such option; there are model, dataset, objective"),
        ("+protocol.patiense=8", "protocol.patiense: there is no such option; did you mean patience?"),
        ("++protocol.patiense=8", "protocol.patiense: there is no such option; did you mean patience?"),
        ("+dataset.foo=1", "dataset.foo: there is no such option; there are name, url"),
        ("+model.foo=1", "model.foo: there is no such option; there are"),
        ("+model.quantizer.foo=1", "model.quantizer.foo: there is no such option; there are estimator"),
        ("+objective.foo=1", "objective.foo: there is no such option; there are l2"),
        ("+annealing.foo=1", "annealing.foo: there is no such option; there are name, curve"),
        ("+eval.foo=1", "eval.foo: there is no such option; there are ks, memory_mb"),
        ("model=l2q_plus ++model.filter.gamma=1", "gamma: there is no such option; did you mean gamma_"),
        # that the set cannot give
        ("eval.ks=[9999999]", "eval.ks=[9999999]: give a list of cut-offs from 1 to 5219"),
        ("eval.ks=[]", "eval.ks=[]: give a list of cut-offs"),
        (
            "dataset=table dataset.dir=x.csv dataset.test_fraction=1",
            "dataset.test_fraction=1 must be a number of at least 0 and below 1",
        ),
        ("dataset=gowalla dataset.dir=/nowhere", "no train.txt and no test.txt in /nowhere; put"),
        # of each other
        (
            "objective=softmax batch_size=512 objective.num_negatives=513",
            "objective.num_negatives=513: a batch draws one item for each of its batch_size=512 pairs",
        ),
        # files
        ("ckpt_path=/nowhere/last.ckpt", "ckpt_path=/nowhere/last.ckpt is not a file; give a checkpoint"),
        ("ckpt_path=/nowhere/last.ckpt fit=false", "ckpt_path=/nowhere/last.ckpt is not a file; give"),
        ("fit=false", "fit=false evaluates a checkpoint: name it with ckpt_path=FILE"),
    ],
)
def test_what_cannot_end_well_is_refused_in_one_line_before_anything_runs(tmp_path, words, said):
    with pytest.raises(L2QError, match=re.escape(said)) as caught:
        Run(composed(*words.split(), "logger=none"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [("+logger.foo=1", "logger.foo: there is no")],
)
def test_what_a_logger_does_not_take_is_refused_before_training(tmp_path, word, said):
    words = table(tmp_path / "events.csv")
    made = Run(composed(*words, "model.embedding_dim=8", "logger=none", word), tmp_path / "run")
    with pytest.raises(L2QError, match=re.escape(said)):
        made()
    assert not (tmp_path / "run" / "history.csv").exists()


@pytest.mark.parametrize(
    "word", ["+trainer.limit_train_batches=2", "+dataset.cache_dir=cache", "++epochs=3", "~experiment"]
)
def test_an_option_that_is_not_in_conf_is_taken_where_something_reads_it(tmp_path, word):
    made = Run(
        composed(*table(tmp_path / "events.csv"), word.replace("=cache", f"={tmp_path}/cache")), Path()
    )
    assert made.config["epochs"] == (3 if "epochs" in word else 50)
    assert (tmp_path / "cache").exists() == ("cache" in word)
