"""The Python API from end to end: ``import l2q`` is all that these tests need of the package."""

import numpy as np
import pytest
from runs import composed, figures, table

import l2q
from l2q import settings
from l2q.learning.run import Run

QUICK = {"embeddings": {"steps": 60}, "descent": {"intruder_rounds": 1}}
"""``l2q_plus`` in seconds: less to train, fewer rounds of lists."""


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> l2q.Interactions:
    path = tmp_path_factory.mktemp("table") / "events.csv"
    table(path)
    return l2q.read_events(path)


def test_the_example_of_the_readme(tmp_path):
    """On the embedded data, with fewer bits than it has there."""
    data = l2q.load_dataset("debian")
    names = data.train.user_names, data.train.item_names
    pairs = (
        np.concatenate([data.train.users, data.test.users]),
        np.concatenate([data.train.items, data.test.items]),
    )
    with (tmp_path / "events.csv").open("w") as file:
        file.write("package,needs\n")
        file.writelines(f"{names[0][user]},{names[1][item]}\n" for user, item in zip(*pairs, strict=True))

    events = l2q.read_events(tmp_path / "events.csv", user="package", item="needs")
    assert (events.num_users, events.num_items) == (data.train.num_users, data.train.num_items)
    assert len(events) == len(data.train) + len(data.test)
    train, test = l2q.split(events, "random", fraction=0.2, seed=0)
    assert 0.19 < len(test) / len(events) < 0.21
    fixed = {"filter": {"rank": 64}, "embeddings": {"weight": 0}}  # nothing to choose: in under a minute
    index = l2q.fit(train, "l2q_plus", bits=96, seed=0, model=fixed | {"descent": {"intruder_rounds": 2}})
    assert index.dims == (96,)

    items, scores = index.recommend("ffmpeg", k=10)
    assert len(items) == len(scores) == 10
    assert list(scores) == sorted(scores, reverse=True)
    names = list(events.item_names)
    seen = {names[item] for item in train[list(events.user_names).index("ffmpeg")]}
    assert seen
    assert seen.isdisjoint(items)
    many = index.recommend(["ffmpeg", "blender"], k=5)
    assert many[0].items == items[:5]
    assert many[1].items == index.recommend("blender", k=5).items
    new = index.recommend(items=["libavcodec59"], k=10)
    near = index.similar("libavcodec59", k=10)
    for ranking in (new, near):
        assert "libavcodec59" not in ranking.items
        assert any(name.startswith(("libav", "libsw")) for name in ranking.items)  # of the same family

    found = l2q.evaluate(index, test, ks=[20]).metrics
    popular = l2q.evaluate(l2q.fit(train, "popularity"), test, ks=[20]).metrics
    assert found["recall_20"] > popular["recall_20"] + 0.2
    assert found["ndcg_20"] > popular["ndcg_20"] + 0.2

    index.save(tmp_path / "index")
    again = l2q.load_index(tmp_path / "index")
    assert again.recommend("ffmpeg", k=10).items == items
    assert np.array_equal(again.recommend("ffmpeg", k=10).scores, scores)
    assert again.recommend(items=["libavcodec59"], k=10).items == new.items
    assert l2q.evaluate(again, test, ks=[20]).metrics == found


def equal(one: l2q.Index, other: l2q.Index) -> None:
    """Every array, to the bit."""
    assert one.dims == other.dims
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype, name
        assert array.tobytes() == other.arrays[name].tobytes(), name
    assert [*one.user_names, *one.item_names] == [*other.user_names, *other.item_names]


CASES = {
    "lightgcn": (
        {"epochs": 3, "batch_size": 128, "model": {"embedding_dim": 8}},
        ["epochs=3", "batch_size=128", "model.embedding_dim=8"],
    ),
    "l2q_anl": (
        {"epochs": 3, "batch_size": 128, "bits": 48, "objective": {"l2": 0.002}},
        ["epochs=3", "batch_size=128", "model.embedding_dim=16", "objective.l2=0.002"],
    ),
    "spectral": ({"model": {"dim": 8}}, ["model.dim=8"]),
    "l2q_plus": (
        {"bits": 48, "model": QUICK},
        ["model.bits=48", "model.embeddings.steps=60", "model.descent.intruder_rounds=1"],
    ),
}


@pytest.mark.parametrize("protocol", ["final", "holdout"])
@pytest.mark.parametrize("model", CASES)
def test_fit_gives_what_a_run_of_the_same_settings_leaves(tmp_path, model, protocol):
    changes, words = CASES[model]
    words = [*table(tmp_path / "events.csv"), f"model={model}", f"protocol={protocol}", *words]
    run = Run(composed(*words, "seed=3", "eval.ks=[5]", "logger=none"), tmp_path / "run")
    metrics = run()
    # a model that is fitted at once is measured on a part held out by a run, and takes all that it is given here
    train = run.rest if run.model is not None else run.dataset.train
    index = l2q.fit(train, model, seed=3, protocol=protocol, **changes)
    left = l2q.load_index(tmp_path / "run" / "index")
    if train is run.dataset.train:
        equal(index, left)
    else:
        assert index.representations.items.values.tobytes() == left.representations.items.values.tobytes()
        assert index.representations.users.values.tobytes() == left.representations.users.values.tobytes()
    test = l2q.evaluate(left, run.dataset.test, ks=[5]).metrics
    assert {f"test/{key}": value for key, value in test.items()}.items() <= figures(metrics).items()


@pytest.mark.parametrize("model", settings.choices("model"))
def test_every_model_is_fitted_by_name(events, model):
    train, test = l2q.split(events, fraction=0.2, seed=0)
    options = {
        "popularity": {},
        "spectral": {"model": {"dim": 8}},
        "l2q_plus": {"bits": 48, "model": QUICK},
        "lightgcn": {"epochs": 2, "batch_size": 128, "model": {"embedding_dim": 16}},
    }
    index = l2q.fit(train, model, **options.get(model, {"bits": 48, "epochs": 2, "batch_size": 128}))
    assert (index.num_users, index.num_items) == (events.num_users, events.num_items)
    binary = model not in ("popularity", "spectral", "lightgcn")
    assert ("items.codes" in index.arrays) == binary
    if binary:
        assert sum(index.dims) == 48
        assert index.arrays["items.codes"].shape[1] * 8 >= 48
    assert len(index.recommend("u0", k=5).items) == 5
    assert 0 < l2q.evaluate(index, test, ks=[5]).metrics["recall_5"] < 1


def test_bits_are_shared_out_among_layers(events):
    few = {"epochs": 1, "batch_size": 128}
    assert l2q.fit(events, "l2q", bits=48, **few).dims == (16, 16, 16)
    assert l2q.fit(events, "l2q", bits=48, model={"num_layers": 1}, **few).dims == (24, 24)
    assert l2q.fit(events, "last_layer", bits=48, **few).dims == (48,)


def test_a_seed_fixes_the_index(events):
    options = {"epochs": 1, "batch_size": 128, "bits": 48}
    one, same, other = (l2q.fit(events, "l2q_anl", seed=seed, **options) for seed in (0, 0, 1))
    equal(one, same)
    assert one.arrays["items.codes"].tobytes() != other.arrays["items.codes"].tobytes()


def test_what_a_fit_was_not_asked_for_it_leaves_out(events, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = l2q.fit(events, "l2q_plus", bits=48, model=QUICK)
    left = l2q.fit(events, "l2q_plus", bits=48, model=QUICK, new_users=False)
    assert kept.filter_side is not None
    assert left.filter_side is None
    l2q.fit(events, "lightgcn", epochs=1, model={"embedding_dim": 8})
    assert not list(tmp_path.iterdir())  # neither checkpoints nor W&B's files


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("lightgnc", {}, "model=lightgnc is unknown; use l2q, l2q_anl, l2q_plus"),
        ("l2q_plus", {"bits": 0}, "model.bits=0 must be a whole number of at least 1"),
        ("l2q_plus", {"bits": 9000}, "model.bits=9000 must be a whole number of at least 1 and at most 8192"),
        ("l2q_plus", {"bits": 1.5}, "model.bits=1.5 must be a whole number"),
        ("l2q_plus", {"epochs": 3}, "epochs=3: model=l2q_plus is fitted at once"),
        ("l2q_plus", {"epoch": 3}, "epoch: there is no such option; there are .*epochs"),
        ("l2q_plus", {"model": {"bist": 3}}, "model.bist: there is no such option; did you mean bits"),
        ("l2q_anl", {"bits": 100}, "bits=100: l2q_anl shares them out among 3 layers; give a multiple of 3"),
        ("l2q_anl", {"bits": 1.5}, "bits=1.5: l2q_anl shares them out among 3 layers"),
        (
            "lightgcn",
            {"bits": 64},
            "bits=64: lightgcn keeps floats; model={'embedding_dim': 64} sets its width",
        ),
        ("spectral", {"bits": 64}, "bits=64: spectral keeps floats; model={'dim': 64} sets its width"),
        ("popularity", {"bits": 64}, "bits=64: popularity keeps floats$"),
        ("lightgcn", {"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ("lightgcn", {"learning_rate": 0.0}, "learning_rate=0.0 must be a number above 0"),
        ("lightgcn", {"protocol": "latest"}, "protocol=latest is unknown; use auto, final, holdout"),
        ("lightgcn", {"annealing": "fast"}, "annealing=fast is unknown; use cosine"),
        ("lightgcn", {"model": {"foo": 1}}, "model.foo: there is no such option"),
        ("lightgcn", {"objective": {"l2": -1.0}}, "objective.l2=-1.0 must be a number of at least 0"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(events, model, options, said):
    with pytest.raises(l2q.L2QError, match=said) as caught:
        l2q.fit(events, model, **options)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_go_on_say_so(events):
    earlier = l2q.fit(events, "popularity", seed=0)
    with pytest.raises(l2q.L2QError, match="start: model=spectral is fitted from nothing; leave start out"):
        l2q.fit(events, "spectral", start=earlier)
    with pytest.raises(l2q.L2QError, match="start: model=lightgcn is trained; leave start out"):
        l2q.fit(events, "lightgcn", start=earlier)


def test_a_validation_part_needs_users_with_items():
    lonely = l2q.Interactions.from_pairs([0, 1, 2], [0, 1, 2], 3, 3)
    with pytest.raises(
        l2q.L2QError, match="no user has enough items for a validation part; use protocol='final'"
    ):
        l2q.fit(lonely, "lightgcn", protocol="holdout")  # fmt: skip


def test_every_public_name_is_there():
    assert set(l2q.__all__) <= set(dir(l2q))
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        l2q.train  # noqa: B018
