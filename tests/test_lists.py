"""Approximate rankings: exact among the items of the lists that are looked at, and which lists those are."""

import itertools
import json

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import top_k_reference
from test_packed import MODES, assert_same, problem

import l2q
from l2q.cli import main
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import packed_lists
from l2q.kernels.packed import PackedItems, exclusions_of, top_k
from l2q.kernels.packed_lists import best_rows, majorities, top_k_of_lists
from l2q.kernels.packing import pack
from l2q.representations import Representations, Rows
from l2q.retrieval import lists as made_lists
from l2q.retrieval import shared
from l2q.retrieval.lists import ListedIndex
from l2q.retrieval.storage import FORMAT


def signs(rng, rows, dim):
    return rng.choice(np.array([-1, 1], np.int8), size=(rows, dim))


def by_lists(queries, factors, codes, dims, scales, ids, indptr, lists, k, exclude):
    if queries.dtype == np.int8:
        queries = pack(queries, dims)
    items = PackedItems.from_packed(pack(codes, dims), dims, scales, ids)
    longest = None
    if len(dims) == 1 and (scales is None or (scales >= 0).all()):
        sizes = np.ones(len(ids), np.float32) if scales is None else scales[ids, 0]
        starts = itertools.pairwise(indptr)
        longest = np.float32([sizes[first:last].max(initial=0) for first, last in starts])
    exclusions = exclusions_of(exclude, np.arange(len(queries)))
    return top_k_of_lists(queries, factors, items, ids, indptr, longest, lists, k, exclusions)


def beyond(lists, ids, indptr, exclude):
    """What each query may not find: what it excludes, and the items that are in none of its lists."""
    pairs = [(query, item) for query in range(len(lists)) for item in exclude[query]]
    for query, some in enumerate(lists):
        inside = np.concatenate(
            [ids[indptr[which] : indptr[which + 1]] for which in some if which >= 0] or [[]]
        )
        pairs += [(query, item) for item in np.setdiff1d(ids, inside)]
    users, items = np.array(pairs, np.int64).reshape(-1, 2).T
    return Interactions.from_pairs(users, items, len(lists), len(ids))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(MODES),
    kind=st.sampled_from(["random", "positive", "long and short", "ties", "zeros", "one large"]),
    dims=st.lists(st.integers(1, 130), min_size=1, max_size=3),
    num_queries=st.sampled_from([0, 1, 2, 5, 41]),
    num_items=st.sampled_from([1, 15, 64, 65, 300, 1000]),
    num_lists=st.sampled_from([1, 2, 7, 40]),
    k=st.sampled_from([1, 7, 400]),
    excluded_share=st.sampled_from([0, 0.1, 3]),
)
def test_equals_the_reference_among_the_items_looked_at(
    seed, mode, kind, dims, num_queries, num_items, num_lists, k, excluded_share
):
    """Lists of any length, empty ones and those that begin within a block; all of them, some, one or none."""
    queries, factors, codes, scales, exclude = problem(
        seed, mode, dims, num_queries, num_items, int(excluded_share * num_queries * num_items), kind
    )
    exclude = exclude or Interactions.from_pairs([], [], num_queries, num_items)
    rng = np.random.default_rng(seed)
    which = np.sort(rng.integers(num_lists, size=num_items))
    ids = rng.permutation(num_items).astype(np.int32)
    indptr = np.searchsorted(which, np.arange(num_lists + 1))
    lists = rng.permuted(np.tile(np.arange(num_lists, dtype=np.int32), (num_queries, 1)), axis=1)
    looked_at = rng.integers(num_lists + 1, size=(num_queries, 1))
    lists = np.where(np.arange(num_lists) < looked_at, lists, -1).astype(np.int32)
    found = by_lists(queries, factors, codes, dims, scales, ids, indptr, lists, k, exclude)
    expected = top_k_reference(queries, factors, codes, dims, scales, k, beyond(lists, ids, indptr, exclude))
    assert_same(found, expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["random", "ties", "zeros", "one large"]),
    num_queries=st.sampled_from([1, 7, 8, 30]),
    num_items=st.sampled_from([1, 64, 300, 9000]),
    share=st.sampled_from([0, 0.1, 0.7, 1]),
)
def test_best_rows_are_those_of_a_heap(seed, kind, num_queries, num_items, share):
    dims = (130, 70)
    queries, factors, codes, scales, _ = problem(seed, "scaled", dims, num_queries, num_items, 0, kind)
    packed, items = pack(queries, dims), PackedItems.from_packed(pack(codes, dims), dims, scales)
    count = max(int(share * num_items), 1)
    found = best_rows(packed, factors, items, count)
    expected = top_k(packed, factors, items, count)[1]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))
    longest = PackedItems.longest_first(pack(codes, dims), dims, np.abs(scales))
    found = best_rows(packed, factors, longest, count)
    scores = np.empty((num_queries, num_items), np.float32)
    np.put_along_axis(scores, *top_k(packed, factors, longest, num_items)[::-1], axis=1)
    np.testing.assert_array_equal(  # equal scores fall by the place
        -np.sort(-np.take_along_axis(scores, found, axis=1), axis=1), -np.sort(-scores, axis=1)[:, :count]
    )


def test_best_rows_of_scores_of_any_size():
    """Two bins only, and scores that are infinite."""
    dims, rng = (8,), np.random.default_rng(0)
    for scales in ([1e-38, 1], [1e38, 1], [np.inf, 1], [0, 0]):
        items = PackedItems.from_packed(
            pack(signs(rng, 500, 8), dims), dims, rng.choice(np.float32(scales), (500, 1))
        )
        queries = pack(np.ones((9, 8), np.int8), dims)
        found = best_rows(queries, np.ones((9, 1), np.float32), items, 100)
        expected = top_k(queries, np.ones(1, np.float32), items, 100)[1]
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [(130, 70), (200,)])
@pytest.mark.parametrize("kind", ["ties", "long and short"])
def test_all_lists_are_the_exact_search(mode, dims, kind):
    """More queries than a chunk has."""
    queries, factors, codes, scales, exclude = problem(3, mode, dims, 520, 3000, 4000, kind)
    rng = np.random.default_rng(3)
    ids = rng.permutation(3000).astype(np.int32)
    indptr = np.concatenate(([0], np.sort(rng.integers(3001, size=99)), [3000]))
    lists = np.stack([rng.permutation(100) for _ in range(520)]).astype(np.int32)
    found = by_lists(queries, factors, codes, dims, scales, ids, indptr, lists, 25, exclude)
    rows = pack(queries, dims) if queries.dtype == np.int8 else queries
    items = PackedItems.from_packed(pack(codes, dims), dims, scales)
    assert_same(found, top_k(rows, factors, items, 25, exclude))


def test_majorities_by_hand():
    rows = pack(np.int8([[1, 1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, -1]]), (3,))
    codes = np.array([[7], [7], [7]], np.uint8)
    majorities(rows, np.array([0, 1, 2, 2, 3]), np.array([0, 3, 3, 5]), codes)
    # of rows 0, 1, 2: + + -; no rows: as before; of 2 and 3: the middle bit is even, which counts as +
    np.testing.assert_array_equal(codes, [[0b011], [7], [0b010]])


def clustered(seed=0, num_users=60, num_items=500, dims=(64, 40), binary_users=True):
    """Users and items around twelve directions, lengths that vary, everybody with a few items."""
    rng = np.random.default_rng(seed)
    around = rng.standard_normal((12, sum(dims)))
    turned = [
        around[rng.integers(12, size=rows)] + rng.standard_normal((rows, sum(dims)))
        for rows in (num_users, num_items)
    ]
    users, items = (np.where(rows >= 0, 1, -1).astype(np.int8) for rows in turned)
    lengths = rng.lognormal(0, 0.5, (num_items, len(dims))).astype(np.float32)
    users = Rows(users) if binary_users else Rows(turned[0].astype(np.float32))
    train = Interactions.from_pairs(
        np.repeat(np.arange(num_users), 6), rng.integers(num_items, size=6 * num_users), num_users, num_items
    )
    weights = np.float32([1, 0.5][: len(dims)])
    return l2q.Index.of(Representations(users, Rows(items, lengths), dims, weights, "float32"), train)


@pytest.fixture(scope="module", params=[True, False], ids=["codes", "float users"])
def index(request):
    return clustered(binary_users=request.param).with_lists(directions=20, seed=1)


def test_every_item_is_in_one_list(index):
    lists = index.lists
    np.testing.assert_array_equal(np.sort(lists.items), np.arange(500))
    assert lists.whole()
    assert 20 < len(lists.codes) < 500  # directions are split by length
    scales = index.arrays["items.scales"]
    for which, (first, last) in enumerate(zip(lists.indptr, lists.indptr[1:], strict=False)):
        some = lists.items[first:last]
        assert (np.diff(some) > 0).all()
        np.testing.assert_array_equal(lists.scales[which], scales[some].max(axis=0))
        lengths = scales[some] @ np.float32([64, 20])
        assert lengths.max() <= 1.2501 * lengths.min() or lengths.max() < 1e-3 * scales.max()


def test_exact_is_what_nobody_asks_less_than(index):
    users = np.arange(60)
    whole = clustered(binary_users=index.arrays.get("users.codes") is not None).search(
        users, 20, index.exclude
    )
    for found in (index.search(users, 20, index.exclude), index.search(users, 20, index.exclude, exact=1)):
        assert_same(found, whole)


def test_shares_are_those_of_a_plain_count(index):
    """Users are fewer than a sample, so that all of them were measured."""
    users, lists = np.arange(60), index.lists
    best = index.search(users, 20, index.exclude)[1]
    listed = index._by_lists
    ranks = listed.ranks(users)
    list_of = {
        item: which
        for which in range(len(lists.codes))
        for item in lists.items[lists.indptr[which] : lists.indptr[which + 1]].tolist()
    }
    for probes in (1, 3, 10, len(lists.codes)):
        found = [ranks[user, list_of[item]] < probes for user in users for item in best[user].tolist()]
        sizes = [np.diff(lists.indptr)[ranks[user] < probes].sum() / 500 for user in users]
        np.testing.assert_allclose(lists.shares[probes - 1], [np.mean(found), np.mean(sizes)], rtol=1e-6)
    for exact in (0.5, 0.9, 0.99):
        probes = lists.probes(exact)
        assert lists.shares[probes - 1, 0] >= np.float32(exact)
        assert probes == 1 or lists.shares[probes - 2, 0] < np.float32(exact)
        assert index.lists.share(exact) == lists.shares[probes - 1, 0]


@pytest.mark.parametrize("exact", [0.3, 0.9, 0.999])
def test_the_exact_ranking_among_the_items_looked_at(index, exact):
    users, lists = np.arange(60), index.lists
    ranks, sizes = index._by_lists.ranks(users), np.diff(lists.indptr)
    held = np.take_along_axis(np.broadcast_to(sizes, ranks.shape), np.argsort(ranks), axis=1).cumsum(axis=1)
    enough = (held < 20 + index.exclude.user_degrees[:, None]).sum(axis=1) + 1
    looked_at = ranks < np.maximum(enough, lists.probes(exact))[:, None]
    scores, items = index.search(users, 20, index.exclude, exact)
    all_scores, everything = index.search(users, 500, index.exclude)
    list_of = np.empty(500, np.int64)
    list_of[lists.items] = np.repeat(np.arange(len(lists.codes)), np.diff(lists.indptr))
    for user in users:
        kept = (everything[user] >= 0) & looked_at[user, list_of[everything[user]]]
        expected = everything[user][kept][:20]
        np.testing.assert_array_equal(items[user][: len(expected)], expected)
        np.testing.assert_array_equal(scores[user][: len(expected)], all_scores[user][kept][:20])
    found = np.mean([np.isin(everything[user, :20], items[user]).mean() for user in users])
    assert found >= exact - 1e-6


def test_one_user_with_many_items_sends_no_other_further(index, monkeypatch):
    kernels, seen = made_lists.kernels, []
    monkeypatch.setattr(
        kernels,
        "top_k",
        lambda *given, top_k=kernels.top_k: seen.append((len(given[0]), given[3])) or top_k(*given),
    )
    backend = index._by_lists.looking_at(0.5)
    owns = Interactions.from_pairs(np.zeros(450, int), np.arange(450), 60, 500)
    items = backend.search(np.arange(60), 1, owns)[1]
    assert items[0, 0] >= 450
    further = [users for users, most in seen if most > backend.probes]
    assert further
    assert set(further) == {1}


@pytest.mark.parametrize("threads", [1, 2])
def test_many_users_at_once_find_what_each_finds_alone(index, threads, monkeypatch):
    """To the bit, whether lists are few or many, in several chunks and in one."""
    before, users = numba.get_num_threads(), np.tile(np.arange(60), 4)
    try:
        for together, most in ((16, 1 << 24), (1024, 1 << 24), (1024, 2000)):
            monkeypatch.setattr(packed_lists, "TOGETHER", together)
            monkeypatch.setattr(packed_lists, "_ONE_THREAD", 0 if together == 16 else 1024)
            monkeypatch.setattr(packed_lists, "CHUNK", 8)
            monkeypatch.setattr(packed_lists, "_SCORES", most)
            for exact in (0.3, 0.9, 0.999):
                numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
                scores, items = index.search(users, 20, index.exclude, exact)
                for user in range(60):
                    alone = index.search(users[user : user + 1], 20, index.exclude, exact)
                    for turn in range(4):
                        row = slice(60 * turn + user, 60 * turn + user + 1)
                        assert_same((scores[row], items[row]), alone)
    finally:
        numba.set_num_threads(before)


def test_rankings_are_as_long_as_asked_for(index):
    """One list holds fewer items than are asked for, and than a user excludes."""
    everybody_has = Interactions.from_pairs(np.repeat([0, 1], [450, 3]), [*range(450), 1, 2, 3], 60, 500)
    scores, items = index.search(np.array([0, 1]), 100, everybody_has, exact=0.01)
    assert (items[0] >= 0).sum() == 50
    assert set(items[0][items[0] >= 0]) == set(range(450, 500))
    assert (items[1] >= 0).all()
    assert not {1, 2, 3} & set(items[1].tolist())
    assert (np.diff(scores[1]) <= 0).all()


def test_by_name_and_for_new_users(index):
    for ask in ({"users": "3"}, {"users": ["3", "5"]}, {"items": ["4", "7"]}):
        found, exactly = (index.recommend(**ask, k=10, exact=exact) for exact in (0.999, 1))
        found, exactly = (each if isinstance(each, list) else [each] for each in (found, exactly))
        for one, other in zip(found, exactly, strict=True):
            assert len(one.items) == 10
            assert len(set(one.items) & set(other.items)) >= 8
    assert index.recommend("3", exact=0.9).items == [
        index.item_names[item] for item in index.search(np.array([3]), 10, index.exclude, 0.9)[1][0]
    ]


def test_who_is_unknown_gets_what_is_popular():
    train = Interactions.from_pairs([0, 0, 1], [2, 1, 2], 3, 50)
    rng = np.random.default_rng(0)
    rows = Representations(Rows(signs(rng, 3, 16)), Rows(signs(rng, 50, 16)), (16,), np.ones(1, np.float32))
    listed = l2q.Index.of(rows, train).with_lists(4)
    with pytest.warns(UserWarning, match="no train items"):
        assert listed.recommend("2", k=2, exact=0.5).items == ["2", "1"]


def test_lists_are_the_same_for_any_number_of_threads():
    index, before, found = clustered(), numba.get_num_threads(), []
    try:
        for count in (1, before):
            numba.set_num_threads(count)
            found.append(index.with_lists(15, seed=4).lists.arrays)
    finally:
        numba.set_num_threads(before)
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])


def test_scales_that_are_zero_or_missing():
    rng = np.random.default_rng(1)
    for scales in (None, np.zeros((90, 1), np.float32), rng.choice(np.float32([0, -1, 2]), (90, 1))):
        items = Rows(signs(rng, 90, 24), scales)
        rows = Representations(Rows(signs(rng, 9, 24)), items, (24,), np.ones(1, np.float32), "float32")
        listed = l2q.Index.of(rows, Interactions.from_pairs(range(9), range(9), 9, 90)).with_lists(9)
        assert listed.lists.whole()
        every = listed._by_lists
        assert_same(every.search(np.arange(9), 20), listed.search(np.arange(9), 20))


def test_what_cannot_be_used_is_one_line(index, monkeypatch):
    plain = clustered()
    floats = Rows(np.ones((3, 4), np.float32))
    dense = l2q.Index.of(
        Representations.floats(floats.values, floats.values), Interactions.from_pairs([0], [1], 3, 3)
    )
    for call, said in (
        (lambda: plain.with_lists(501), "directions=501: there are 500 items; give 1 to 500"),
        (lambda: plain.with_lists(0), "directions=0: there are 500 items"),
        (lambda: dense.with_lists(), "lists are made of codes, and the items of this index are floats"),
        (
            lambda: plain.recommend("1", exact=0.9),
            r"the index has no lists; make them by index.with_lists\(\)",
        ),
        (lambda: index.recommend("1", exact=0), "exact=0: it is a share of the exact ranking"),
        (lambda: index.recommend("1", exact=1.5), "exact=1.5: it is a share"),
        (lambda: index.recommend("1", exact=float("nan")), "exact=nan: it is a share"),
        (lambda: index.recommend("1", exact="0.9"), "exact='0.9': it is a share"),
        (lambda: index.recommend("1", exact=None), "exact=None: it is a share"),
    ):
        with pytest.raises(L2QError, match=said):
            call()


def test_items_that_processes_share_are_ranked_exactly(index, tmp_path, monkeypatch):
    index.save(tmp_path / "index")
    opened = l2q.load_index(tmp_path / "index")
    monkeypatch.setattr(shared, "_groups", [object()])
    with pytest.raises(L2QError, match="items that processes share are ranked exactly"):
        opened.search(np.array([0]), 5, exact=0.9)


def test_lists_are_saved_with_the_index(index, tmp_path):
    index.save(tmp_path / "index")
    opened = l2q.load_index(tmp_path / "index")
    users = np.arange(60)
    assert_same(opened.search(users, 20, opened.exclude, 0.9), index.search(users, 20, index.exclude, 0.9))
    for name, array in index.lists.arrays.items():
        np.testing.assert_array_equal(opened.arrays[name], array)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["format"] == FORMAT
    assert {f"{name}.npy" for name in index.lists.arrays} <= manifest["files"].keys()
    clustered().save(tmp_path / "index")  # without lists: those of before leave the folder
    assert not list((tmp_path / "index").glob("lists.*"))
    assert l2q.load_index(tmp_path / "index").lists is None


@pytest.mark.parametrize("name", ["codes", "scales", "indptr", "items", "shares"])
def test_damaged_lists_are_refused_by_name(tmp_path, name):
    folder = clustered().with_lists(5).save(tmp_path / "index")
    path = folder / f"lists.{name}.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(L2QError, match=f"checksum of lists.{name}.npy does not match"):
        l2q.load_index(folder)
    path.unlink()
    with pytest.raises(L2QError, match=f"lists.{name}.npy is missing"):
        l2q.load_index(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lists.items": np.zeros(500, np.int32)}, "do not hold every item once"),
        ({"lists.items": np.arange(1, 501, dtype=np.int32)}, "do not hold every item once"),
        ({"lists.items": np.arange(499, dtype=np.int32)}, r"lists.items.npy is int32 \(499,\), expected"),
        ({"lists.indptr": None}, "lists.indptr.npy is missing"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, change, said):
    """Also where checksums are not looked at."""
    index = clustered().with_lists(5)
    arrays = {name: array for name, array in (index.arrays | change).items() if array is not None}
    folder = l2q.Index(index.manifest, arrays, index.names).save(tmp_path / "index")
    for verify in (True, False):
        with pytest.raises(L2QError, match=said):
            l2q.load_index(folder, verify=verify)


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(made_lists, "MOST_USERS", 40)
    folder = str(clustered().save(tmp_path / "index"))
    assert main(["recommend", "--index", folder, "--user", "3", "--exact", "0.9"]) == 2
    assert "the index has no lists" in capsys.readouterr().err
    assert main(["lists", "--index", folder, "--directions", "12"]) == 0
    said = capsys.readouterr().out
    assert "500 items in" in said
    assert "0.99 " in said
    assert "1 (exact)" in said
    assert main(["recommend", "--index", folder, "--user", "3", "-k", "5", "--exact", "0.9", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    opened = l2q.load_index(folder)
    assert answer["exact"] == opened.lists.share(0.9) >= 0.9
    assert [place["item"] for place in answer["ranking"]] == opened.recommend("3", 5, exact=0.9).items
    owned = ",".join(opened.item_names[item] for item in opened.exclude[0])
    assert main(["recommend", "--index", folder, "--items", owned, "--exact", "0.9"]) == 0
    assert "approximate, 9" in " ".join(capsys.readouterr().out.split())
    out = str(tmp_path / "all.parquet")
    assert main(["batch", "--index", folder, "--out", out, "-k", "5", "--exact", "0.9"]) == 0
    assert "approximate" in capsys.readouterr().out
    assert main(["recommend", "--index", folder, "--user", "3", "--json"]) == 0
    assert "exact" not in json.loads(capsys.readouterr().out)
    assert main(["info", "--index", folder]) == 0
    assert "for approximate rankings" in capsys.readouterr().out
    assert main(["lists", "--index", folder, "--directions", "900"]) == 2
    assert "directions=900: there are 500 items" in capsys.readouterr().err


def test_users_are_measured_who_have_items(monkeypatch):
    monkeypatch.setattr(made_lists, "MOST_USERS", 10)
    index = clustered().with_lists(10)
    assert index.lists.shares[-1].tolist() == [1, 1]
    assert (np.diff(index.lists.shares, axis=0) >= 0).all()
    assert isinstance(index._by_lists, ListedIndex)
