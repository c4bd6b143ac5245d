"""What a run has written, with other bytes: refused or left out by name, never another figure without a word. And
tables that break while they are read; pairs that are none."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from runs import EVERY_EPOCH, SMALL, composed, table

import l2q
from l2q.data.parts import of_run
from l2q.errors import L2QError
from l2q.files import is_whole, read_sealed
from l2q.learning.jobs import Job
from l2q.report.runs import config_of, history, per_user, read
from l2q.report.tables import difference
from l2q.tracking.wandb_rebuild import rebuild


@pytest.fixture
def job(tmp_path):
    words = [*table(tmp_path / "events.csv"), *SMALL, EVERY_EPOCH, "model=l2q", "logger=none"]
    job = Job(composed(*words), tmp_path / "run")
    assert job.attempt().state == "done"
    return job


def another(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_another_figure_in_metrics_is_refused_everywhere(job, tmp_path):
    path = job.folder / "metrics.json"
    (run,) = read(job.folder)
    assert not {"sha256", "files"} & run.keys()
    figure = f'"test/packed/recall_20": {run["test/packed/recall_20"]}'
    another(path, figure, '"test/packed/recall_20": 0.123')
    with pytest.raises(ValueError, match="its checksum does not match"):
        read_sealed(path)
    with pytest.warns(
        UserWarning, match=r"metrics\.json is no metrics file of a run \(its checksum does not"
    ):
        assert read(job.folder, allow_none=True) == []
    outcome = job.attempt()
    assert outcome.state == "failed"
    assert "metrics.json is damaged (its checksum does not match)" in outcome.reason
    for refused in (lambda: rebuild(job.folder), lambda: of_run(job.folder)):
        with pytest.raises(L2QError, match=r"metrics\.json is damaged \(its checksum does not match\)"):
            refused()
    with pytest.raises(L2QError, match=r"--diff .*metrics\.json is damaged"):
        difference(job.folder, job.folder)
    # nor without its checksum, where it says those of others
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    with pytest.raises(ValueError, match="its checksum does not match"):
        read_sealed(path)


def test_files_beside_the_metrics_are_held_to_them(job):
    (run,) = read(job.folder)
    for name in ("config.json", "history.csv", "per_user.npz"):
        assert is_whole(job.folder / name)
    assert config_of(job.folder)
    assert len(history(job.folder / "history.csv")) == 2
    assert per_user(run, "recall_20") is not None
    another(job.folder / "config.json", '"learning_rate": 0.', '"learning_rate": 1.')
    another(job.folder / "history.csv", "\n1,", "\n7,")
    values = dict(np.load(job.folder / "per_user.npz"))
    values["recall_20"][0] += 0.5
    np.savez_compressed(job.folder / "per_user.npz", allow_pickle=False, **values)
    said = "it is not as the run has written it"
    for asked in (
        lambda: config_of(job.folder),
        lambda: history(job.folder / "history.csv"),
        lambda: per_user(run, "recall_20"),
    ):
        with pytest.warns(UserWarning, match=said):
            assert not asked()
    with pytest.raises(L2QError, match=rf"config\.json is damaged \({said}\)"):
        rebuild(job.folder)
    with pytest.raises(L2QError, match=r"config\.json is no configuration of a run"):
        of_run(job.folder)


def test_metrics_of_before_there_were_checksums_are_read(job):
    path = job.folder / "metrics.json"
    values = read_sealed(path)
    path.write_text(json.dumps(values))
    assert read(job.folder)[0]["test/packed/recall_20"] == values["test/packed/recall_20"]
    assert job.attempt().metrics == values


def events() -> pa.Table:
    users = [f"user {number % 40}" for number in range(400)]
    return pa.table({"user": users, "item": [f"item {number * 7 % 61}" for number in range(400)]})


def broken(path, whole: bytes):
    """Every 40th byte in turn, with all bits flipped."""
    for place in range(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        yield


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow"])
def test_a_table_that_breaks_while_it_is_read_is_refused_in_one_line(tmp_path, kind):
    """Its schema is whole and its values are not: DuckDB says so late, or ends the process."""
    path = tmp_path / f"events.{kind}"
    if kind == "parquet":
        pq.write_table(events(), path)
    elif kind == "feather":
        feather.write_feather(events(), path, compression="uncompressed")
    else:
        with ipc.new_stream(path, events().schema) as stream:
            stream.write_table(events())
    said = []
    for _ in broken(path, path.read_bytes()):
        try:
            l2q.read_events(path)
        except L2QError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(str(path) in line and "\n" not in line for line in said)


def test_a_line_of_json_within_json_is_refused(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"a":' * 100_000 + "\n{}\n")
    with pytest.raises(L2QError, match=r"events\.jsonl"):
        l2q.read_events(path)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (([0, 1], [0], 2, 2), "2 user ids and 1 item ids are no pairs"),
        (([], [0, 0], 0, 1), "0 user ids and 2 item ids are no pairs"),
        (([0.5], [0], 2, 2), "user ids are no whole numbers"),
        (([0], ["a"], 2, 2), "item ids are no whole numbers"),
        (([2**70], [0], 2, 2), "user ids are no whole numbers"),
        (([[0]], [[0]], 2, 2), "user ids are no whole numbers"),
        (([np.uint64(2**63)], [0], 2, 2), "user id 9223372036854775808 is outside 0 .. 1"),
        (([], [], -1, 2), "num_users=-1 is no count"),
    ],
)
def test_pairs_that_are_none_are_refused(pairs, said):
    """A fraction was cut to a whole number without a word; others were errors of NumPy's."""
    with pytest.raises(L2QError, match=said):
        l2q.Interactions.from_pairs(*pairs)


SAID = [
    b"\x8d",
    b"[",
    b"[" * 100_000,
    b"null",
    b'{"columns": 3}',
    b'{"columns": [1]}',
    b'{"columns": [{"field_name": [1]}]}',
    b'{"index_columns": null}',
    b'{"index_columns": [{"name": "row"}]}',
    b'{"index_columns": [{"name": "row", "start": 0, "step": 1e400}]}',
]


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_what_pandas_wrote_of_columns_may_be_damaged(tmp_path, ending):
    path, found = (
        tmp_path / f"events.{ending}",
        pa.table({"user": ["a", "b"] * 9, "item": ["x", "y", "z"] * 6}),
    )
    write = pq.write_table if ending == "parquet" else feather.write_feather
    for said in SAID:
        write(found.replace_schema_metadata({b"pandas": said}), path)
        with pytest.raises(L2QError, match=f"{ending}: what pandas wrote of its columns is damaged"):
            l2q.read_events(path)


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_names_of_columns_that_are_no_text_are_a_line(tmp_path, ending):
    found = pa.table({"user": ["a", "b"] * 9, "item": ["x", "y", "z"] * 6, "column": [1] * 18})
    write = pq.write_table if ending == "parquet" else feather.write_feather
    write(found, path := tmp_path / f"events.{ending}")
    path.write_bytes(path.read_bytes().replace(b"column", b"col\xff\xfen"))
    with pytest.raises(L2QError, match=r"cannot read .*: a name of a column is no UTF-8"):
        l2q.read_events(path)
