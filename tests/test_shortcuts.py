"""``effort=fast``: the same choice by passes over many teachers, and a fit that goes on from what is at hand."""

from dataclasses import replace

import numpy as np
import pytest
from presets import descent, embeddings, l2q_plus

from l2q.data.splits import split
from l2q.evaluation import evaluate
from l2q.fitted import shortcuts
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.shortcuts import Choice, choose_quickly, strongest
from l2q.fitted.teacher import Teacher, TeacherIndex
from l2q.fitted.trials import GAIN, Trials, tail_ends
from l2q.fitted.tuning import choose_teacher
from l2q.interactions import Interactions
from l2q.kernels.svd import truncated_svd

ALONE = embeddings(weight=0.0)


@pytest.fixture
def train(communities: Interactions) -> Interactions:
    return communities


@pytest.mark.parametrize(("ended", "at_once"), [(False, 90), (True, 90), (False, 7), (True, 7)])
def test_a_pass_over_many_teachers_finds_what_each_of_them_has_alone(train, monkeypatch, ended, at_once):
    """Ranks, popularities, tails and weights that share products or do not; Recall + NDCG as ``evaluate`` measures.
    Users who are asked do not all fit into one matrix."""
    monkeypatch.setattr("l2q.fitted.trials.SCORES", at_once * train.num_items)
    monkeypatch.setattr("l2q.fitted.trials.PASSES", 0 if ended else np.inf)
    monkeypatch.setattr("l2q.fitted.trials.BROAD", 40)
    assert tail_ends(train) == ended
    part, held = split(train, fraction=0.2, seed=0)
    asked = np.flatnonzero(held.user_degrees)[::2]
    held = held.select(np.isin(held.users, asked))
    learned = embeddings(dim=8, steps=30)(part, 0)
    trials = Trials(part, held, asked, learned, 0.15, 0)
    filters = [
        SpectralFilter(rank=rank, popularity=popularity, tail=tail, gamma_item=gamma)
        for rank, popularity, tail, gamma in (
            (40, 0.5, 0.4, 0.5),
            (6, 0.5, 0.4, 0.5),
            (6, 0.0, 0.4, 0.5),
            (6, 0.5, 0.0, 0.5),
            (6, 0.3, 1.6, 0.3),
        )
    ]
    line = [
        Teacher(filter, replace(ALONE, weight=weight)) for filter in filters for weight in (0.0, 0.5, 2.0)
    ]
    found = trials(line)
    for teacher in line:
        scores = Choice(teacher, trials.decomposed(teacher.filter)[::2], learned, ended)
        svd = trials.decomposed(teacher.filter)
        index = TeacherIndex(teacher.scores(teacher.filter(part, 0, svd, ended), learned))
        metrics = evaluate(index, held, [20], part).metrics
        expected = metrics["recall_20"] + metrics["ndcg_20"]
        assert found[teacher] == pytest.approx(
            expected * (1 if teacher.embeddings.weight else GAIN), abs=1e-6
        )
        assert scores.teacher == teacher
    assert len(set(found.values())) > 9  # else the comparison would prove little


def test_the_quick_choice_is_about_as_good_as_the_whole_grids(train):
    part, held = split(train, fraction=0.2, seed=3)

    def quality(teacher: Teacher) -> float:
        found = evaluate(TeacherIndex(teacher(part, 0)), held, [20], part).metrics
        return found["recall_20"] + found["ndcg_20"]

    whole = choose_teacher(part, embeddings=embeddings(steps=60))
    quick = choose_quickly(part, embeddings=embeddings(steps=60)).teacher
    assert quality(quick) > 0.93 * quality(whole)
    assert quality(quick) > quality(Teacher(SpectralFilter(rank=90, popularity=1.0, tail=0.0), ALONE))


def test_the_choice_is_the_best_of_all_that_were_tried(train, caplog):
    """Also of those that a line has left behind; in the second round ranks are tried without embeddings too."""
    part, _ = split(train, fraction=0.2, seed=3)
    caplog.set_level("INFO", "l2q.file")
    found = choose_quickly(part, embeddings=embeddings(steps=60)).teacher
    tries = [record.getMessage() for record in caplog.records if "teacher try" in record.getMessage()]
    values = [
        float(line.split("NDCG ")[1].split()[0]) * (GAIN if "weight 0 " in line else 1) for line in tries
    ]
    best = tries[int(np.argmax(values))]
    assert f"{found.filter}, weight {found.embeddings.weight:g} of" in best
    assert len(set(values)) > 20


def test_decompositions_that_are_forgotten_change_nothing_much(train, monkeypatch):
    """Memory is bounded; what is asked for again is made again."""
    part, held = split(train, fraction=0.2, seed=3)
    asked = np.flatnonzero(held.user_degrees)
    found = []
    for kept in (np.inf, 0):
        monkeypatch.setattr("l2q.fitted.trials.KEPT", kept)
        trials = Trials(part, held, asked, None, 0.15, 0)
        for gamma in (0.5, 0.4, 0.3, 0.2, 0.5):
            trials([Teacher(SpectralFilter(rank=12, gamma_item=gamma), ALONE)])
            trials([Teacher(SpectralFilter(rank=6, gamma_item=gamma), ALONE)])
        assert len(trials.svds) == (4 if kept else 2)
        found.append([trials.tried[teacher] for teacher in trials.tried])
    np.testing.assert_allclose(found[1], found[0], rtol=0.05)


def test_the_base_keeps_its_strongest_directions(monkeypatch):
    rng = np.random.default_rng(0)
    X, Y = (
        rng.standard_normal((30, 9)),
        rng.standard_normal((20, 9)) * np.float64([9, 1, 8, 2, 7, 3, 6, 4, 5]),
    )
    assert strongest((X, Y)) == (X, Y)
    monkeypatch.setattr(shortcuts, "NARROW", 4)
    kept = [0, 2, 4, 6]
    for found, whole in zip(strongest((X, Y)), (X, Y), strict=True):
        np.testing.assert_array_equal(found, whole[:, kept])
        assert found.flags.c_contiguous


def test_a_decomposition_goes_on_from_that_of_nearly_the_same_matrix(train):
    """One iteration from a neighbor comes nearer to the exact values than one from chance."""
    part = train.select(np.random.default_rng(0).random(len(train)) < 0.95)
    R, near = (np.asarray(one.to_csr().todense()) for one in (train, part))
    exact = np.linalg.svd(R, compute_uv=False)[:12]
    U, _, VT = np.linalg.svd(near)
    start = U[:, :20].astype(np.float32), VT[:20].T.astype(np.float32)
    warm = truncated_svd(train.to_csr(), 12, 0, 0, start)[1]
    cold = truncated_svd(train.to_csr(), 12, 0, 0)[1]
    assert np.abs(warm - exact).max() < 0.3 * np.abs(cold - exact).max()
    again = truncated_svd(train.to_csr(), 12, 0, 6, start)[1]
    np.testing.assert_allclose(again, exact, rtol=1e-3)


def test_embeddings_go_on_from_earlier_ones(train):
    options = embeddings(dim=8, steps=80)
    first = options(train, 0)
    none = replace(options, steps=0)
    for kept, was in zip(none(train, 0, None, first), first, strict=True):
        np.testing.assert_allclose((kept * was).sum(axis=1), 1, atol=0.02)  # but for the noise of the start
    assert options.quick().steps == 20
    assert options.quick(0.25).steps == 5
    assert (options.quick().negatives, options.negatives) == (256, 1024)


def test_a_tail_that_ends_is_that_of_the_directions_at_hand(train):
    R = train.to_csr()
    R_hat = R.multiply(train.user_degrees[:, None] ** -0.3).multiply(
        np.maximum(train.item_degrees, 1) ** -0.5
    )
    filter = SpectralFilter(rank=6, popularity=0.5, tail=0.8)
    svd = truncated_svd(R_hat.tocsr().astype(np.float32), 90, 0)
    whole = filter(train, 0, svd).scores(slice(0, 90))
    ended = filter(train, 0, svd, ended=True).scores(slice(0, 90))  # all 90 directions: nothing is left out
    np.testing.assert_allclose(ended, whole, atol=2e-4 * np.abs(whole).max())
    assert filter(train, 0, svd, ended=True).factor == 0


def test_fast_and_best_rank_alike(train):
    """Codes of both are near their teachers; a quick fit has a fifth of the intruder rounds."""
    part, held = split(train, fraction=0.2, seed=1)
    quality = {}
    for effort in ("fast", "best"):
        model = l2q_plus(effort=effort, bits=64, embeddings=embeddings(steps=40), length=20)
        from l2q.retrieval.index import DenseIndex

        metrics = evaluate(DenseIndex(model.fit(part, 0).representations), held, [20], part).metrics
        quality[effort] = metrics["recall_20"] + metrics["ndcg_20"]
    assert quality["fast"] == pytest.approx(quality["best"], rel=0.1)
    assert descent(rounds=3, intruder_rounds=20).quick().plan == ["round"] * 2 + ["intruders", "round"] * 4
    assert descent(rounds=3, intruder_rounds=20).again().plan == ["round", *["intruders", "round"] * 3]
