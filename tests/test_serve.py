"""The service: every route against the index itself, what is refused, and an index that takes another's place."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import asking, request
from test_named import MAKE, NUM_ITEMS, NUM_USERS, codes, interactions, named

from l2q.cli import main
from l2q.errors import L2QError
from l2q.retrieval.named import Index, Ranking
from l2q.retrieval.storage import load_index
from l2q.serving import questions, scoring, shelf
from l2q.serving.app import application
from l2q.serving.names import Names
from l2q.serving.served import Lists, Served
from l2q.serving.server import loopback, serve
from l2q.serving.shelf import Shelf, titles

USERS, ITEMS = ([f"{word} {row}" for row in range(size)] for word, size in (("user", 20), ("ítem", 30)))


def newcomer(seed=1) -> Index:
    """An index whose first user has no train items."""
    train = interactions(seed)
    return Index.of(codes(), named(train.select(train.users > 0)))


MADE: dict[str, Any] = {**MAKE, "newcomer": newcomer}


@pytest.fixture(scope="module", params=sorted(MADE))
def folder(request, tmp_path_factory) -> Path:
    return MADE[request.param]().save(tmp_path_factory.mktemp("serve") / request.param)


@pytest.fixture(scope="module")
def opened(folder) -> Index:
    return load_index(folder)


@pytest.fixture(scope="module")
def app(folder) -> Any:
    return application(Shelf([str(folder)]))


@pytest.fixture(scope="module")
def codes_app(tmp_path_factory) -> Any:
    return application(Shelf([str(MAKE["codes"]().save(tmp_path_factory.mktemp("made") / "codes"))]))


def asked_of(index: Index, method: str, *arguments: Any, **named: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a user has no train items
        return getattr(index, method)(*arguments, **named)


def left(ranking: Ranking, k: int, exclude: Any = (), only: Any = ITEMS) -> list[tuple[str, float]]:
    """The first ``k`` of a ranking of everything that the lists leave."""
    found = zip(ranking.items, ranking.scores.tolist(), strict=True)
    return [(item, score) for item, score in found if item not in exclude and item in only][:k]


def same(answered: Any, expected: list[tuple[str, float]]) -> None:
    assert [place["item"] for place in answered["ranking"]] == [item for item, _ in expected]
    # a product of float rows is rounded as the number of its rows and columns asks for
    scores = [place["score"] for place in answered["ranking"]]
    np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-5, atol=1e-6)


LISTS: list[dict[str, Any]] = [
    {},
    {"k": 5},
    {"k": 1000},
    {"exclude": ITEMS[3:17]},
    {"k": 4, "only": ITEMS[::3]},
    {"k": 3, "only": ITEMS[4:20], "exclude": [*ITEMS[10:15], "nowhere"]},
    {"only": [ITEMS[7]], "exclude": [ITEMS[7]]},
    {"only": ["nowhere"]},
]


@pytest.mark.parametrize("lists", LISTS, ids=str)
def test_a_user_of_the_index(app, opened, lists):
    for user in ("user 0", "user 7"):
        answered = request(app, "GET", "/recommend", params={"user": user, **lists})
        assert answered.status_code == 200
        said = answered.json()
        whole = asked_of(opened, "recommend", user, NUM_ITEMS)
        same(said, left(whole, lists.get("k", 20), lists.get("exclude", ()), lists.get("only", ITEMS)))
        assert said["user"] == user
        assert said.get("popular", False) == bool(opened.without_items(np.array([USERS.index(user)]))[0])
        assert said.get("unknown", []) == (["nowhere"] if "nowhere" in str(lists) else [])
        many = request(app, "POST", "/recommend", json={"users": [user], **lists}).json()
        assert {**many, **many["rankings"][0], "rankings": 0} == {**said, "rankings": 0}


def test_many_users(app, opened):
    names = [*USERS, *USERS[::-1]] * 4  # more than are searched at once
    assert len(names) > scoring.CHUNK
    said = request(app, "POST", "/recommend", json={"users": names, "k": 6}).json()
    for answered, user in zip(said["rankings"], names, strict=True):
        assert answered["user"] == user
        same(answered, left(asked_of(opened, "recommend", user, NUM_ITEMS), 6))


@pytest.mark.parametrize("lists", LISTS, ids=str)
def test_a_new_user(app, opened, lists):
    owned = ["ítem 5", "ítem 2", "ítem 11", "ítem 5"]
    said = request(app, "GET", "/recommend", params={"item": owned, **lists}).json()
    expected = left(
        opened.recommend(items=owned, k=NUM_ITEMS), lists.get("k", 20), lists.get("exclude", ()),
        lists.get("only", ITEMS),
    )  # fmt: skip
    same(said, expected)
    assert said["items"] == owned
    many = request(app, "POST", "/recommend", json={"items": [["ítem 1"], owned], **lists}).json()
    same(many["rankings"][1], expected)


def test_approximate_rankings_say_so(tmp_path, capsys):
    folder = str(MAKE["codes"]().with_lists(directions=6).save(tmp_path / "index"))
    index = load_index(folder)
    app = application(Shelf([folder], exact=0.5))
    answered = request(app, "GET", "/recommend?user=user+3&k=5").json()
    same(answered, left(index.recommend("user 3", k=5, exact=0.5), 5))
    assert answered["exact"] == pytest.approx(index.lists.share(0.5))
    among = request(app, "POST", "/recommend", json={"users": ["user 3"], "k": 3, "only": ITEMS[4:20]}).json()
    assert "exact" not in among  # some items alone are all scored
    same(among["rankings"][0], left(index.recommend("user 3", k=30), 3, only=ITEMS[4:20]))
    assert "exact Top-20" in request(app, "GET", "/?name=user+3").text
    plain = str(MAKE["codes"]().save(tmp_path / "plain"))
    assert main(["serve", "--index", plain, "--port", "0", "--exact", "0.9"]) == 2
    assert "the index has no lists" in capsys.readouterr().err


@pytest.mark.parametrize("lists", LISTS, ids=str)
def test_similar_items(app, opened, lists):
    for item in ("ítem 7", "ítem 29"):
        said = request(app, "GET", "/similar", params={"item": item, **lists}).json()
        expected = left(
            opened.similar(item, NUM_ITEMS),
            lists.get("k", 20),
            lists.get("exclude", ()),
            lists.get("only", ITEMS),
        )
        same(said, expected)
        assert said["item"] == item
        many = request(app, "POST", "/similar", json={"items": ["ítem 1", item], **lists}).json()
        same(many["rankings"][1], expected)
        other = request(app, "GET", "/similar", params={"item": "ítem 1", **lists}).json()
        same(many["rankings"][0], [(place["item"], place["score"]) for place in other["ranking"]])


def test_questions_that_wait_together_are_answered_each(app, opened):
    async def at_once(client: httpx.AsyncClient) -> list[Any]:
        users = [USERS[n % NUM_USERS] for n in range(60)]
        asked = [
            client.get("/recommend", params={"user": user, "k": 1 + n % 9}) for n, user in enumerate(users)
        ]
        return [answered.json() for answered in await asyncio.gather(*asked)]

    for n, said in enumerate(asking(app, at_once)):
        same(said, left(asked_of(opened, "recommend", USERS[n % NUM_USERS], NUM_ITEMS), 1 + n % 9))


def test_rows_are_names_where_an_index_has_none(tmp_path):
    Index.of(codes(), interactions()).save(tmp_path / "index")
    app, index = application(Shelf([str(tmp_path / "index")])), load_index(tmp_path / "index")
    said = request(app, "POST", "/recommend", json={"users": [3, "4"], "k": 3}).json()
    assert [answered["user"] for answered in said["rankings"]] == ["3", "4"]
    for answered, user in zip(said["rankings"], (3, 4), strict=True):
        same(answered, left(index.recommend(user, NUM_ITEMS), 3, only=index.item_names))


def test_names_by_their_beginning(codes_app):
    found = request(codes_app, "GET", "/names", params={"start": "USER 1"}).json()
    assert found["items"] == []
    assert found["users"][0] == "user 1"  # the name itself, then those with the most items
    assert len(found["users"]) == 8
    degrees = interactions().user_degrees
    sizes = [degrees[USERS.index(name)] for name in found["users"][1:]]
    assert sizes == sorted(sizes, reverse=True)
    names = Names("items", ["b", "Ba", "bab", "c", "", "ba"], np.array([1, 2, 3, 4, 5, 6]))
    assert names.starting("ba", 9) == ["Ba", "ba", "bab"]
    assert names.starting("", 2) == ["", "ba"]
    assert names.starting("d", 9) == []
    assert names.near("bax") == ["Ba", "ba", "bab"]
    assert names.near("xyz") == []


def test_health_and_metrics(folder):
    app = application(Shelf([str(folder)]))
    (served,) = request(app, "GET", "/health").json()["indexes"]
    assert (served["name"], served["users"], served["items"]) == (folder.name, NUM_USERS, NUM_ITEMS)
    assert load_index(folder).manifest["sha256"].startswith(served["version"])
    request(app, "GET", "/recommend", params={"user": "user 3"})
    request(app, "GET", "/recommend", params={"user": "nobody"})
    request(app, "GET", "/a-path-that-somebody-made-up")
    text = request(app, "GET", "/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    from prometheus_client.parser import text_string_to_metric_families

    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.text)
        for sample in family.samples
    }
    counted = {key[1:]: value for key, value in found.items() if key[0] == "l2q_requests_total"}
    assert counted == {
        (("route", "/health"), ("status", "200")): 1,
        (("route", "/recommend"), ("status", "200")): 1,
        (("route", "/recommend"), ("status", "404")): 1,
        (("route", "none"), ("status", "404")): 1,
    }
    assert found["l2q_request_seconds_count", ("route", "/recommend")] == 2
    assert found["l2q_index_items", ("index", folder.name), ("version", served["version"])] == NUM_ITEMS


def test_the_routes_are_described(codes_app):
    described = request(codes_app, "GET", "/openapi.json").json()
    routes = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert routes == {
        ("/recommend", "get"), ("/recommend", "post"), ("/similar", "get"), ("/similar", "post"),
        ("/names", "get"), ("/health", "get"), ("/metrics", "get"),
    }  # fmt: skip
    for path, method in routes:
        responses = described["paths"][path][method]["responses"]
        assert {"200", "404", "413", "422", "503"} <= responses.keys()
        assert responses["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Refusal")
    models = {"Answer": questions.Answer, "Answers": questions.Answers, "Health": questions.Health}
    assert models.keys() <= described["components"]["schemas"].keys()
    for url, model in (
        ("/recommend?user=user 3", "Answer"),
        ("/similar?item=ítem 3", "Answer"),
        ("/health", "Health"),
    ):
        said = request(codes_app, "GET", url).json()
        models[model].model_validate(said, extra="forbid")
    said = request(codes_app, "POST", "/recommend", json={"items": [["ítem 3"]]}).json()
    questions.Answers.model_validate(said, extra="forbid")


# what is refused

REFUSED = [
    ("GET", "/recommend", {}, 422, "give user=NAME, or item=NAME once for each item that a new user has"),
    ("GET", "/recommend?user=user 3&item=ítem 3", {}, 422, "give user=NAME, or"),
    ("GET", "/recommend?user=user 33", {}, 404, "no user is named 'user 33' among 20; near it: user 3"),
    ("GET", "/recommend?item=ítem 3&item=item 4", {}, 404, "no item is named 'item 4' among 30"),
    ("GET", "/recommend?usr=user 3", {}, 422, "there is no such option"),
    ("GET", "/recommend?user=user 3&k=0", {}, 422, "k=0: input should be greater than or equal to 1"),
    ("GET", "/recommend?user=user 3&k=1001", {}, 422, "k=1001: input should be less than or equal to 1000"),
    ("GET", "/recommend?user=user 3&k=ten", {}, 422, "k=ten: input should be a valid integer"),
    ("GET", "/recommend?user=user 3&index=../../etc", {}, 404, "no index is named '../../etc' here; give codes"),
    ("GET", "/similar?item=nothing", {}, 404, "no item is named 'nothing'"),
    ("GET", "/similar?item=ítem 1&item=", {}, 422, "item=: string should have at least 1 character"),
    ("GET", "/names", {}, 422, "start: field required"),
    ("GET", "/?k=0", {}, 422, "k=0: input"),
    ("GET", "/..%2f..%2fetc/passwd", {}, 404, "there is nothing here; /openapi.json lists the routes"),
    ("POST", "/names?start=a", {}, 405, "POST is not for this route"),
    ("DELETE", "/recommend", {}, 405, "DELETE is not for this route"),
    ("POST", "/recommend", {}, 422, "send a JSON object, as application/json"),
    ("POST", "/recommend", {"content": b"{"}, 422, "send a JSON object, as application/json"),
    ("POST", "/recommend", {"json": {}}, 422, "give users, a list of names, or items, a list of items for each"),
    ("POST", "/recommend", {"json": {"users": ["user 3"], "items": [["ítem 3"]]}}, 422, "give users, a list"),
    ("POST", "/recommend", {"json": {"users": []}}, 422, "users: list should have at least 1 item"),
    ("POST", "/recommend", {"json": {"items": [[]]}}, 422, "items.0: list should have at least 1 item"),
    ("POST", "/recommend", {"json": {"users": ["user 3"] * 1001}}, 422, "at most 1000 items"),
    ("POST", "/recommend", {"json": {"users": ["user 3"] * 500, "k": 500}}, 422, "ask in several requests"),
    ("POST", "/similar", {"json": {"items": ["ítem 3"] * 500, "k": 500}}, 422, "ask in several requests"),
    ("POST", "/recommend", {"json": {"users": ["user 3"], "only": ["a"] * 10_001}}, 422, "at most 10000 items"),
    ("POST", "/recommend", {"json": {"users": ["user 3", "user 55"]}}, 404, "no user is named 'user 55'"),
    ("POST", "/recommend", {"json": {"users": [True]}}, 422, "users.0"),
    ("POST", "/recommend", {"content": b" " * 2**20 + b"{}"}, 413, "more than 1,048,576 bytes; ask in several"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "url", "more", "status", "said"), REFUSED)
def test_what_cannot_be_used_is_one_line(codes_app, method, url, more, status, said):
    answered = request(codes_app, method, url, **more)
    assert (answered.status_code, answered.headers["content-type"]) == (status, "application/json")
    (line,) = answered.json().values()
    assert said in line
    assert len(line.splitlines()) == 1


def test_an_index_without_what_new_users_need_says_so(tmp_path, monkeypatch):
    app = application(Shelf([str(MAKE["codes"]().save(tmp_path / "index"))]))

    def none(self: Index) -> Any:
        raise L2QError("rows of the index hold NaN; save it anew")

    monkeypatch.setattr(Index, "fold_in", property(none))
    answered = request(app, "GET", "/recommend", params={"item": "ítem 3"})
    assert (answered.status_code, answered.json()) == (
        400,
        {"error": "rows of the index hold NaN; save it anew"},
    )
    assert request(app, "GET", "/recommend", params={"user": "user 3"}).status_code == 200


def test_more_questions_than_can_wait_are_told_to_come_back(codes_app, monkeypatch):
    monkeypatch.setattr(scoring, "MOST_WAITING", 0)
    answered = request(codes_app, "GET", "/recommend", params={"user": "user 3"})
    assert (answered.status_code, answered.headers["retry-after"]) == (503, "1")


texts = st.text(max_size=30)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)
bad_k = st.one_of(
    st.integers(max_value=0), st.integers(min_value=1001), st.floats(allow_infinity=False).filter(lambda k: k % 1),
    texts.filter(lambda text: not text.strip().lstrip("+-").isdigit()), st.lists(leaves), st.none(),
)  # fmt: skip
no_list = leaves | st.dictionaries(texts, leaves)
bad_names = st.one_of(
    no_list.filter(lambda value: value is not None), st.just([]),
    st.lists(st.none() | st.floats() | st.booleans(), min_size=1),
    st.lists(texts.filter(lambda text: text not in USERS and text not in ITEMS), min_size=1, max_size=3),
)  # fmt: skip
body = st.one_of(
    st.fixed_dictionaries({"users": bad_names}),
    st.fixed_dictionaries({"items": bad_names}),
    st.fixed_dictionaries({"users": st.just(["user 3"]), "k": bad_k}),
    st.fixed_dictionaries({"users": st.just(["user 3"]), "exclude": no_list}),
    st.fixed_dictionaries({"users": st.just(["user 3"]), "index": anything.filter(lambda value: value is not None)}),
    st.dictionaries(texts, anything),
    anything,
).map(lambda value: json.dumps(value).encode())  # fmt: skip
posts = st.tuples(
    st.just("POST"), st.sampled_from(["/recommend", "/similar"]), st.just({}), body | st.binary(max_size=99)
)
gets = st.tuples(
    st.just("GET"),
    st.sampled_from(["/recommend", "/similar"]),
    st.one_of(
        st.fixed_dictionaries({"user": texts, "k": bad_k.map(str)}),
        st.fixed_dictionaries({"item": texts.filter(lambda text: text not in ITEMS)}),
        st.dictionaries(texts.filter(lambda text: text not in ("user", "item")), texts, max_size=4),
    ),
    st.just(b""),
)
others = st.tuples(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD"]),
    texts.filter(lambda text: text and not text.startswith(("?", "#", "/", "\\"))).map(
        lambda text: "/x" + text
    ),
    st.dictionaries(texts, texts, max_size=3),
    st.binary(max_size=99),
)


@settings(max_examples=450, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(posts, gets, others),
    st.sampled_from(["application/json", "text/plain", "", "application/json; charset=x"]),
)
def test_a_malformed_request_is_told_so(codes_app, malformed, kind):
    method, path, query, content = malformed
    url = httpx.URL("http://test").join(quote(path))
    answered = request(codes_app, method, url, params=query, content=content, headers={"content-type": kind})
    assert 400 <= answered.status_code < 500, (malformed, answered.text)
    if method != "HEAD":
        (line,) = answered.json().values()
        assert line
        assert len(line.splitlines()) == 1


# an index that takes another's place


def test_nothing_is_written_below_an_index(tmp_path):
    folder = MAKE["fitted"]().save(tmp_path / "index")
    before = {
        path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [tmp_path, folder, *folder.iterdir()]
    }
    app = application(Shelf([str(folder)]))
    for url in (
        "/",
        "/?name=user 3",
        "/recommend?user=user 3",
        "/recommend?item=ítem 3",
        "/similar?item=ítem 3",
    ):
        assert request(app, "GET", url).status_code == 200
    for path in ("/recommend", "/", "/index/manifest.json"):
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            assert 400 <= request(app, method, path, content=b"{}").status_code < 500
    assert before == {
        path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [tmp_path, folder, *folder.iterdir()]
    }


def version(seed: int) -> Index:
    """Indexes that differ in names, codes and train items."""
    return Index.of(codes(seed), named(interactions(seed), mark="" if seed == 0 else f" of {seed}"))


def under_load(folder: Path, swaps: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Replaces the index again and again while it is asked; returns how many answers there were."""
    monkeypatch.setattr(shelf, "LOOK_SECONDS", 0.01)
    made = [version(seed) for seed in range(3)]
    made[0].save(folder)
    served = Shelf([str(folder)])
    expected = {}
    for index in made:
        index.save(folder)
        opened = load_index(folder)
        expected[opened.manifest["sha256"][:12]] = [opened.recommend(row, 5) for row in opened.user_names]
    app, ended = application(served), threading.Event()
    served.watch()

    def replacing() -> None:
        for number in range(swaps):
            before = served.reloads["done"]
            made[number % 3].save(folder)
            while served.reloads["done"] == before:
                ended.wait(0.005)
            asked = len(answers)  # however busy the machine is, each index answers
            while sum(one.status_code == 200 for one in answers[asked:]) < 16:
                ended.wait(0.005)
        ended.set()

    answers: list[Any] = []

    async def ask(client: httpx.AsyncClient) -> None:
        while not ended.is_set():
            (health,) = (await client.get("/health")).json()["indexes"]
            users = (
                USERS if health["version"] == first else [f"{user} of {n}" for user in USERS for n in (1, 2)]
            )
            answered = await client.post(
                "/recommend", json={"users": [users[len(answers) % len(users)]], "k": 5}
            )
            answers.append(answered)

    first = next(iter(expected))

    async def load(client: httpx.AsyncClient) -> None:
        thread = threading.Thread(target=replacing)
        thread.start()
        await asyncio.gather(*(ask(client) for _ in range(8)))
        thread.join()

    asking(app, load)
    served.close()
    answered_by = set()
    for answer in answers:
        assert answer.status_code in (200, 404)  # 404: the user asked for is one of the index before
        if answer.status_code == 200:
            said = answer.json()
            answered_by.add(said["version"])
            (ranking,) = said["rankings"]
            row = USERS.index(ranking["user"].split(" of ")[0])
            expected_ranking = expected[said["version"]][row]
            assert [place["item"] for place in ranking["ranking"]] == expected_ranking.items
            assert [place["score"] for place in ranking["ranking"]] == expected_ranking.scores.tolist()
    assert answered_by == set(expected)
    # one that is replaced while it is opened may be opened once more
    assert served.reloads["done"] >= swaps
    assert served.reloads["refused"] == 0
    return len(answers)


def test_an_index_is_replaced_under_load(tmp_path, monkeypatch):
    assert under_load(tmp_path / "index", 6, monkeypatch) > 20


@pytest.mark.slow
def test_a_reload_beside_questions_needs_no_openmp():
    """Numba's workqueue takes its place, and ends a process of which two threads are at kernels."""
    test = f"{__file__}::{test_an_index_is_replaced_under_load.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env=os.environ | {"NUMBA_THREADING_LAYER": "workqueue"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_index_is_replaced_under_load_for_long(tmp_path, monkeypatch):
    assert under_load(tmp_path / "index", 300, monkeypatch) > 1000


def test_an_index_that_cannot_be_used_leaves_the_one_before(tmp_path, monkeypatch, capsys):
    folder = version(0).save(tmp_path / "index")
    served = Shelf([str(folder)])
    before = served.served
    manifest = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(manifest.replace(b'"num_users": 20', b'"num_users": 21'))
    served._replace(0, before[0])
    assert served.served is before
    assert served.reloads == {"done": 0, "refused": 1}
    assert "manifest.json" in served.refused
    assert "not reloaded: index" in capsys.readouterr().err
    assert request(application(served), "GET", "/health").json()["refused"] == served.refused
    version(1).save(folder)
    served._replace(0, before[0])
    assert served.served[0].version == load_index(folder).manifest["sha256"][:12]
    assert (served.refused, served.reloads) == ("", {"done": 1, "refused": 1})


def test_files_that_change_do_not_change_answers(tmp_path):
    """An index is in memory: another that is copied over it file by file mixes with nothing."""
    folder = version(0).save(tmp_path / "index")
    served = Served.open("index", folder)
    before = served.recommend(np.arange(20), 5, Lists())
    for path in folder.glob("*.npy"):
        path.write_bytes(bytes(path.stat().st_size))
    for one, other in zip(before, served.recommend(np.arange(20), 5, Lists()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_new_users_need_is_there_again_after_a_reload(tmp_path):
    folder = version(0).save(tmp_path / "index")
    served = Shelf([str(folder)])
    served._replace(0, served.served[0])
    assert "fold_in" not in vars(served.served[0].index)  # nobody asked
    _ = served.served[0].index.fold_in
    served._replace(0, served.served[0])
    assert "fold_in" in vars(served.served[0].index)


def test_an_index_that_nobody_has_any_more_goes_without_a_collection(tmp_path):
    """Collections look at nothing that was there when the service began, so that requests need not wait for them."""
    served = Served.open("index", version(0).save(tmp_path / "index"))
    served.recommend(np.arange(3), 5, Lists())
    served.similar(np.arange(3), 5, Lists())
    _ = served.index.fold_in
    there = [
        weakref.ref(each) for each in (served, served.index, served.users, *served.index.arrays.values())
    ]
    gc.disable()
    try:
        del served
        assert not [each for each in there if each() is not None]
    finally:
        gc.enable()


# the process


def test_collections_pass_over_what_is_there_at_the_start(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: seen.append(gc.get_freeze_count()))
    before = gc.get_freeze_count()
    serve([str(version(0).save(tmp_path / "index"))], "127.0.0.1", 0)
    assert seen[0] > before
    assert gc.get_freeze_count() == 0


def test_titles_tell_folders_apart(tmp_path):
    assert titles(["runs/l2q/1/index"]) == ["1"]
    assert titles(["runs/model=l2q/index", "runs/model=lightgcn/index"]) == ["model=l2q", "model=lightgcn"]
    assert titles(["a/index", "a/index/b"])[0] != titles(["a/index", "a/index/b"])[1]
    with pytest.raises(L2QError, match="--index a is given twice"):
        titles(["a", "a"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--index", "nowhere"], "nowhere"),
        (["--index", "a", "--index", "b", "--index", "c"], "--index is given 3 times; give one or two"),
        (["--index", "INDEX", "--index", "INDEX"], "is given twice"),
        (
            ["--index", "INDEX", "--host", "no.such.host.invalid"],
            "--host 'no.such.host.invalid' is no address",
        ),
        (["--index", "INDEX", "--port", "70000"], "--port 70000 is none; give one of 1 .. 65535"),
        (
            ["--index", "INDEX", "--port", "TAKEN"],
            "cannot be had: Address already in use; give another --port",
        ),
    ],
)
def test_a_service_that_cannot_start_says_why(tmp_path, capsys, words, said):
    folder = MAKE["codes"]().save(tmp_path / "index")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        meant = {"INDEX": str(folder), "TAKEN": str(taken.getsockname()[1])}
        assert main(["serve", *(meant.get(word, word) for word in words)]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_loopback_is_told_from_other_addresses():
    assert [loopback(address) for address in ("127.0.0.1", "127.8.8.8", "::1")] == [True] * 3
    assert [loopback(address) for address in ("0.0.0.0", "::", "192.168.0.7")] == [False] * 3


class Process:
    """``python -m l2q serve`` on a free port."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "l2q", "serve", "--port", "0", *words]
        self.running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.running.stdout is not None
        self.line = self.running.stdout.readline()
        assert "http://" in self.line, self.running.communicate()
        self.address = self.line.split("http://")[1].split()[0]
        self.port = int(self.address.rpartition(":")[2])

    def end(self, number: int) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        self.running.send_signal(number)
        said = self.running.communicate()[1]
        return self.running.returncode, said


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts services; those that a test that failed has left are ended."""
    started: list[Process] = []

    def begin(*words: str) -> Process:
        started.append(Process(*words))
        return started[-1]

    yield begin
    for process in started:
        process.running.kill()


def test_a_process_reloads_and_ends_at_a_signal(tmp_path, start):
    folder = version(0).save(tmp_path / "index")
    process = start("--index", str(folder))
    assert process.address.startswith("127.0.0.1:")
    with httpx.Client(base_url=f"http://{process.address}", timeout=60) as client:
        before = client.get("/health").json()["indexes"][0]["version"]
        for garbage in (
            b"\r\n\r\n",
            b"GET / SPDY\r\n\r\n",
            b"\x00\xff" * 99 + b"\r\n\r\n",
            b"GET /" + b"a" * 200_000,
        ):
            with socket.create_connection(("127.0.0.1", process.port)) as raw:
                answered = b""
                # The service may close while we still send. Then any of our calls, shutdown too, finds no connection.
                with contextlib.suppress(OSError):
                    raw.sendall(garbage)
                    raw.shutdown(socket.SHUT_WR)
                    while got := raw.recv(65536):
                        answered += got
                assert answered == b"" or answered.split()[1].startswith(b"4")
        version(1).save(folder)
        process.running.send_signal(signal.SIGHUP)
        while (after := client.get("/health").json()["indexes"][0]["version"]) == before:
            pass
        assert after == load_index(folder).manifest["sha256"][:12]
        # a request whose end comes after the signal is answered
        with socket.create_connection(("127.0.0.1", process.port)) as slow:
            content = json.dumps({"users": ["user 3 of 1"], "k": 2}).encode()
            head = "POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(content)}\r\n\r\n"
            slow.sendall(head.encode() + content[:5])
            client.get("/health")  # the head has been read
            process.running.send_signal(signal.SIGTERM)
            while True:  # until it takes no more
                try:
                    socket.create_connection(("127.0.0.1", process.port)).close()
                except ConnectionRefusedError:
                    break
            slow.sendall(content[5:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    said = process.running.communicate()[1]
    assert process.running.returncode == 0
    assert said.startswith("reloaded: ")
    assert "Traceback" not in said


def test_another_host_is_warned_of_and_an_interrupt_ends_it(tmp_path, start):
    process = start("--index", str(version(0).save(tmp_path / "index")), "--host", "0.0.0.0")
    code, said = process.end(signal.SIGINT)
    assert code == 0
    assert said.count("\n") == 1
    assert "warning: 0.0.0.0 can be reached from elsewhere" in said
    assert "TLS" in said


def test_a_service_needs_its_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "l2q.serving.server", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "l2q.serving.server")
    assert main(["serve", "--index", str(tmp_path)]) == 2
    assert "a service needs uvicorn: pip install -e '.[serve]'" in capsys.readouterr().err
