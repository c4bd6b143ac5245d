"""The validation grid of the teacher, and codes fitted to what it chooses."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import presets
import pytest
from presets import descent, embeddings, l2q_plus, quantizer

from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.fitted import tuning
from l2q.fitted.descent import fit
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.parts import NOWHERE, Nowhere
from l2q.fitted.teacher import Teacher, TeacherIndex
from l2q.fitted.tuning import choose_teacher, held_out
from l2q.interactions import Interactions
from l2q.models.initialization import FromFitted


@pytest.fixture
def train(communities: Interactions) -> Interactions:
    return communities


ALONE = embeddings(weight=0.0)  # a filter without embeddings


def test_a_teacher_is_ranked_like_its_scores(train):
    scores = Teacher(SpectralFilter(rank=10), ALONE)(train, 0)
    users = np.array([3, 50, 7])
    found, items = TeacherIndex(scores).search(users, 5, train)
    expected = scores.scores(slice(0, 90))[users]
    for row, user in enumerate(users):
        expected[row, train[user]] = -np.inf
    order = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(items, order)
    np.testing.assert_allclose(found, np.take_along_axis(expected, order, axis=1), rtol=1e-5)


@pytest.mark.parametrize("length", [6, 15, 90])
def test_lists_at_hand_give_the_same_ranking(train, length):
    scores = Teacher(SpectralFilter(rank=10), embeddings(weight=0.5, steps=10))(train, 0)
    fit_part, _ = split(train, fraction=0.3, seed=0)
    _, lists = scores.ranking(fit_part, length)[1:]  # with lists of 6 most users lack some of their best 5
    users = np.arange(90)
    _, expected = TeacherIndex(scores).search(users, 5, train)
    values, items = TeacherIndex(scores, lists).search(users, 5, train)
    np.testing.assert_array_equal(items, expected)
    assert (np.diff(values) <= 0).all()


def sums(
    filter: SpectralFilter, draws: list[tuple[Interactions, Interactions]], seed: int = 0
) -> list[float]:
    """Recall + NDCG of a filter that is fitted to the first half of every draw and asked for the second."""
    of_parts = [
        evaluate(TeacherIndex(Teacher(filter, ALONE)(rest, seed)), held, [20], rest).metrics
        for rest, held in draws
    ]
    return [found["recall_20"] + found["ndcg_20"] for found in of_parts]


@pytest.mark.parametrize("how", ["random", "cluster"])
def test_the_chosen_filter_is_the_best_on_validation(train, monkeypatch, how):
    # two lines of two values each: the whole path can be followed by hand
    grid = tuple({"rank": rank} for rank in (3, 40)), tuple({"popularity": p} for p in (0.0, 0.5))
    monkeypatch.setattr(tuning, "FILTERS", grid)
    draws = [split(train, "random", fraction=0.1, seed=0)]
    if how == "cluster":
        draws.append(split(train, how, fraction=0.15, seed=0))

    def quality(rank: int, popularity: float) -> float:
        return math.prod(sums(SpectralFilter(rank=rank, popularity=popularity), draws))

    found = {pair: quality(*pair) for pair in product((3, 40), (0.0, 0.5))}
    popularity = SpectralFilter().popularity
    for _ in range(2):
        rank = max((3, 40), key=lambda rank: found[rank, popularity])
        popularity = max((0.0, 0.5), key=lambda popularity: found[rank, popularity])
    assert len(set(found.values())) == 4  # else the choice would prove nothing
    chosen = choose_teacher(train, embeddings=ALONE, how=how).filter
    assert (chosen.rank, chosen.popularity) == (rank, popularity)


@pytest.mark.parametrize(
    ("how", "whole"), [("random", False), ("random", True), ("cluster", False), ("cluster", True)]
)
def test_what_users_who_are_not_asked_would_give_is_fitted_but_for_whole_clusters(train, how, whole):
    fit, val, _ = held_out(train, how, 0, 20, whole)
    rest, all_held = split(train, how, fraction=0.15 if how == "cluster" else 0.1, seed=0)
    asked = np.flatnonzero(all_held.user_degrees)[::4]
    assert val.keys.tolist() == all_held.select(np.isin(all_held.users, asked)).keys.tolist()
    assert len(all_held) > len(val)
    if how == "random" or not whole:
        assert sorted([*fit.keys, *val.keys]) == train.keys.tolist()
    else:
        np.testing.assert_array_equal(fit.keys, rest.keys)


@pytest.mark.parametrize(("how", "seed"), [("random", 0), ("cluster", 2)])
def test_all_users_decide_about_what_is_near_to_the_best(train, monkeypatch, how, seed):
    monkeypatch.setattr(tuning, "FILTERS", (({"rank": 6}, {"rank": 9}),))
    kinds = dict.fromkeys([how, "random"])

    def choose(parts=NOWHERE, many=2):
        monkeypatch.setattr(tuning, "MANY", many)
        return choose_teacher(train, embeddings=ALONE, how=how, sample=30, seed=seed, parts=parts).filter

    draws = []
    for kind in kinds:
        rest, held = split(train, kind, fraction=0.15 if kind == "cluster" else 0.1, seed=seed)
        draws.append((rest, held))
    some = [(rest, held.select(held.users % 3 == 0)) for rest, held in draws]
    assert {len(np.unique(held.users)) for _, held in draws} == {90}
    quality = cache(lambda filter: math.prod(sums(filter, draws, seed)))
    start = max(
        (SpectralFilter(rank=rank) for rank in (6, 9)), key=lambda one: math.prod(sums(one, some, seed))
    )

    candidates = [
        replace(
            start,
            gamma_item=round(start.gamma_item + gamma, 2),
            popularity=round(start.popularity + gamma + popularity, 2),
            tail=round(start.tail + tail, 2),
        )
        for gamma in (0, -0.1, 0.1)
        for popularity in (0, -0.1, -0.05, 0.05, 0.1)
        for tail in (0, -0.2, 0.2)
    ]
    best = max(candidates, key=quality)
    best = max((replace(best, rank=rank) for rank in sorted((6, 9), key=best.rank.__ne__)), key=quality)
    assert best != start  # else nothing was moved
    parts = Kept()
    assert choose(parts) == best
    assert choose(many=4) != best  # so many users are not there: 30 alone decide
    # broken off in the middle, it goes on from the tries that were kept
    for tries in (1, 3, len(parts.kept["tries"]) - 1):
        again = Kept(tries=parts.kept["tries"][:tries])
        assert choose(again) == best
        np.testing.assert_allclose(again.kept["tries"], parts.kept["tries"], rtol=1e-6)


def test_where_embeddings_are_tried_the_first_users_alone_decide(train, monkeypatch):
    monkeypatch.setattr(tuning, "FILTERS", (({"rank": 6}, {"rank": 9}),))
    found = []
    for many in (2, 99):
        monkeypatch.setattr(tuning, "MANY", many)
        parts = Kept()
        learned = embeddings(weight=None, dim=8, steps=20)
        found.append(
            (
                choose_teacher(train, embeddings=learned, how="random", sample=30, parts=parts),
                parts.kept["tries"],
            )
        )
    assert found[0] == found[1]


class Kept(Nowhere):
    def __init__(self, **kept: Any) -> None:
        self.kept = kept

    def get(self, name: str) -> Any:
        return self.kept.get(name)

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        self.kept[name] = make()


@pytest.mark.parametrize("gain", [0.5, 2])
def test_the_weight_of_the_embeddings_is_chosen_too(train, monkeypatch, caplog, gain):
    """The line of weights alone, beside a filter that is given, and a given weight beside a chosen filter; where
    the embeddings would have to bring more than they do, they are left out."""
    monkeypatch.setattr(tuning, "WEIGHTS", (0.0, 0.3, 3.0))
    monkeypatch.setattr("l2q.fitted.trials.GAIN", gain)
    filter_, learned = SpectralFilter(rank=6), embeddings(dim=8, steps=30)
    fit_part, val = split(train, "random", fraction=0.1, seed=0)

    def quality(weight: float) -> float:
        scores = Teacher(filter_, replace(learned, weight=weight))(fit_part, 0)
        metrics = evaluate(TeacherIndex(scores), val, [20], fit_part).metrics
        return metrics["recall_20"] + metrics["ndcg_20"]

    found = {weight: quality(weight) for weight in (0.0, 0.3, 3.0)}
    assert len(set(found.values())) == 3
    with caplog.at_level("INFO"):
        chosen = choose_teacher(train, filter=filter_, embeddings=learned)
    found[0.0] *= gain
    assert chosen == Teacher(filter_, replace(learned, weight=max(found, key=found.__getitem__)))
    assert bool(chosen.embeddings.weight) == (gain < 1)
    assert "3 tries" in caplog.text
    given = replace(learned, weight=0.3)
    assert choose_teacher(train, filter=filter_, embeddings=given) == Teacher(filter_, given)
    assert choose_teacher(train, embeddings=given).embeddings == given


def test_a_small_catalogue_gets_few_directions_and_none_twice(caplog):
    """Two communities of 12 items: 4, 8 and 16 directions are tried, and of all from 24 on one."""
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(60), 9)
    train = Interactions.from_pairs(users, (users % 2) * 12 + rng.integers(0, 12, len(users)), 60, 24)
    with caplog.at_level("INFO"):
        choose_teacher(train, embeddings=ALONE)
    filters = [message.split("with ")[1] for message in caplog.messages if "teacher try" in message]
    assert len(filters) == len(set(filters))
    first = [int(text.split("rank=")[1].split(",")[0]) for text in filters[:4]]
    assert first == [4, 8, 16, 24]


@pytest.mark.parametrize("how", ["random", "cluster"])
@pytest.mark.parametrize("pairs", [([0, 1, 2], [0, 1, 1]), ([0], [0])])
def test_where_no_user_has_enough_items_the_default_teacher_is_taken(how, pairs, caplog):
    train = Interactions.from_pairs(*pairs, max(pairs[0]) + 1, 4)
    assert choose_teacher(train, embeddings=embeddings(), how=how) == Teacher(SpectralFilter(), ALONE)
    assert f"no user has enough items for a {how} validation part" in caplog.text
    model = l2q_plus(bits=16, split=how, descent=descent(rounds=1), length=3)
    rows = model.fit(train, 0).representations.items
    assert rows.values.shape == (4, 16)
    assert np.isfinite(rows.scales).all()


def test_what_comes_last_is_held_out_where_test_comes_later():
    """60 users have ten items in turn, and user 60 comes last of all, with an item of its own and a known one."""
    turn, users = np.divmod(np.arange(600), 60)
    users, items = [*users, 60, 60], [*((users + turn) % 20), 20, 3]
    keys = np.asarray(users) * 21 + items
    train = Interactions.from_pairs(users, items, 61, 21)
    train = replace(train, times=np.argsort(keys).astype(float), ahead=True)
    part, held, how = held_out(train, None, 0, 4000)
    assert how == "time"
    np.testing.assert_array_equal(np.sort(part.times), np.arange(542))  # of 602; the others are later
    assert held.times.min() == 542
    known = np.flatnonzero(held.user_degrees)
    np.testing.assert_array_equal(known, np.arange(2, 60))  # user 60 never was before
    part, held, _ = held_out(train, None, 0, 29)
    assert len(part) == 542  # where fewer are asked, too, nothing later is fitted to
    np.testing.assert_array_equal(np.flatnonzero(held.user_degrees), known[::2])
    for other in (replace(train, ahead=False), replace(train, times=None), train.select(train.users < 40)):
        part, held, how = held_out(other, None, 0, 4000)
        assert how == "random"
        assert len(part) + len(held) == len(other)
    assert held_out(train.select(train.users < 40), "time", 0, 4000)[2] == "time"
    with pytest.raises(L2QError, match=r"model\.split=time needs the time of every pair"):
        held_out(replace(train, times=None), "time", 0, 4000)
    same = replace(train, times=np.ones(602))
    assert choose_teacher(same, embeddings=ALONE, how="time") == Teacher(SpectralFilter(), ALONE)


def test_bad_options_of_the_filter_are_named(train):
    with pytest.raises(L2QError, match=r"split=banana is unknown; use random or cluster"):
        choose_teacher(train, embeddings=ALONE, how="banana")
    with pytest.raises(L2QError, match=r"model\.split=banana must be one of random, time, cluster or null"):
        l2q_plus(split="banana")
    with pytest.raises(L2QError, match=r"model\.filter\.rank=2\.5 must be a whole number"):
        SpectralFilter(rank=2.5)
    with pytest.raises(L2QError, match=r"model\.filter\.rank=0 must be a whole number of at least 1"):
        l2q_plus(filter={"rank": 0})
    with pytest.raises(L2QError, match=r"model\.length=0 must be a whole number of at least 1"):
        l2q_plus(length=0)
    with pytest.raises(
        L2QError, match=r"model\.bits=0 must be a whole number of at least 1 and at most 8192"
    ):
        l2q_plus(bits=0)


@pytest.fixture
def model():
    """With a filter that is given, and nothing beside it."""
    return l2q_plus(
        effort="best",
        bits=24,
        filter={"rank": 12},
        embeddings=ALONE,
        descent=descent(rounds=1, intruders=5),
        length=20,
    )


def test_the_codes_are_those_of_a_descent_to_the_lists_of_the_teacher(train, model):
    found = model.fit(train, 0)
    base, lists = SpectralFilter(rank=12)(train, 0).ranking(train, 20)[1:]
    expected = fit(base, lists, 24, model.descent, 0, train)
    for side in ("users", "items"):
        ours, theirs = getattr(found.representations, side), getattr(expected, side)
        np.testing.assert_array_equal(ours.values, theirs.values)
    np.testing.assert_array_equal(found.representations.items.scales, expected.items.scales)
    assert found.representations.scale_dtype == "float16"
    assert found.teacher == Teacher(SpectralFilter(rank=12), ALONE)
    users = np.arange(90)
    scores = Teacher(SpectralFilter(rank=12), ALONE)(train, 0)
    np.testing.assert_array_equal(
        found.teacher_index.search(users, 5, train)[1], TeacherIndex(scores).search(users, 5, train)[1]
    )
    assert found.filter_side.options["weight"] == 90 / (4 * 20)
    assert (found.filter_side.options["length"], found.filter_side.V.codes.shape) == (20, (90, 12))


def test_an_encoder_gives_fitted_codes_back_to_the_bit(train, model):
    encoder = presets.encoder(
        train,
        quantizer(scales="row", scale_dtype="float16"),
        FromFitted(model, std=None),
        embedding_dim=24,
        num_layers=0,
        combination="mean",
        transform="identity",
    )
    encoded, expected = encoder.encode(), model.fit(train, 0).representations
    np.testing.assert_array_equal(encoded.users.values, expected.users.values)
    np.testing.assert_array_equal(encoded.items.values, expected.items.values)
    np.testing.assert_array_equal(encoded.items.scales, expected.items.scales)
    assert encoded.scale_dtype == "float16"


def test_rows_to_start_from_get_the_standard_deviation_that_is_asked_for(train, model):
    fitted, started = (np.concatenate(FromFitted(model, std=std)(train, 24, 0)) for std in (None, 0.25))
    assert started.std() == pytest.approx(0.25, rel=1e-5)
    np.testing.assert_allclose(started, fitted * (0.25 / fitted.std()), rtol=1e-5)
    assert started.dtype == np.float32


def test_an_encoder_is_as_wide_as_the_rows_that_it_starts_from(train, model):
    with pytest.raises(
        L2QError, match=r"model\.embedding_dim=32: the fitted rows have 24 columns; give as many"
    ):
        FromFitted(model, std=None)(train, 32, 0)


def test_a_set_says_which_hold_out_asks_as_its_test_does(communities):
    said = replace(communities, holdout="cluster")
    part, held, how = held_out(said, None, 0, 4000)
    assert how == "cluster"
    plain, expected, _ = held_out(communities, "cluster", 0, 4000)
    np.testing.assert_array_equal(held.keys, expected.keys)
    np.testing.assert_array_equal(part.keys, plain.keys)
    assert held_out(said, "random", 0, 4000)[2] == "random"  # who asks for another one gets it
    assert said.select(said.users < 40).holdout == "cluster"
    timed = replace(communities, times=np.arange(len(communities), dtype=float), ahead=True)
    assert held_out(replace(timed, holdout="random"), None, 0, 4000)[2] == "random"
    with pytest.raises(L2QError, match=r"^dataset\.holdout=time needs the time of every pair"):
        held_out(replace(communities, holdout="time"), None, 0, 4000)


@pytest.mark.parametrize("effort", ["fast", "best"])
def test_a_cluster_part_does_not_try_embeddings(communities, effort, caplog):
    model = l2q_plus(
        bits=16, effort=effort, split="cluster", embeddings=embeddings(weight=None, dim=8, steps=5)
    )
    with caplog.at_level("INFO"):
        teacher = model.teach(communities, 0).teacher
    assert teacher.embeddings.weight == 0
    parts = {"fast": "a cluster validation part", "best": "cluster and random validation parts"}
    assert f"chosen on {parts[effort]} of train" in caplog.text
    assert all("weight 0 of embeddings" in text for text in caplog.messages if "teacher try" in text)
