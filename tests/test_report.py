"""The results table, by literal values."""

import json
from pathlib import Path

import pytest

from l2q.cli import main
from l2q.learning.results import show
from l2q.report import markdown, read


def metrics(model: str, recall: float, seed: int, item_bytes: float = 1024.0) -> dict:
    return {
        "model": model,
        "dataset": "toy",
        "protocol": "holdout",
        "seed": seed,
        "epochs": 10 + seed,
        "item_bytes": item_bytes,
        "fit_seconds": 3.0,
        "start_seconds": 1.0,
        "test/packed/recall_20": recall,
        "test/packed/ndcg_20": recall / 2,
    }


def test_means_spreads_and_shares_of_lightgcn():
    runs = [metrics("l2q_anl", 0.28, 0, 108.0), metrics("lightgcn", 0.3, 0), metrics("lightgcn", 0.4, 1)]
    lines = markdown(runs).splitlines()
    assert lines[0] == "**toy**, protocol `holdout`"
    assert lines[4] == (
        "| `lightgcn` | 8,192 | 0.3500 ± 0.0707 | 0.1750 ± 0.0354 | 100.0% / 100.0% | 100.0% / 100.0% | 2 "
        "| 10-11 | 4 s |"
    )
    assert lines[5] == "| `l2q_anl` | 864 | 0.2800 | 0.1400 | 80.0% / 80.0% | 80.0% / 80.0% | 1 | 10 | 4 s |"


def test_the_filter_of_fitted_codes_is_a_row_and_the_best_float_a_reference():
    codes = metrics("l2q_plus", 0.36, 0, 98.0) | {"test/filter/recall_20": 0.4, "test/filter/ndcg_20": 0.2}
    short = codes | {"item_bytes": 28.0}  # the same filter behind fewer bits: one row, one seed
    lines = markdown([metrics("lightgcn", 0.3, 0), short, codes]).splitlines()
    assert lines.pop(6).startswith("| `l2q_plus` | 224 |")
    assert [line.split(" | ") for line in lines[4:]] == [
        ["| `lightgcn`", "8,192", "0.3000", "0.1500", "100.0% / 100.0%", "75.0% / 75.0%", "1", "10", "4 s |"],
        ["| `filter`", "", "0.4000", "0.2000", "133.3% / 133.3%", "100.0% / 100.0%", "1", "", " |"],
        ["| `l2q_plus`", "784", "0.3600", "0.1800", "120.0% / 120.0%", "90.0% / 90.0%", "1", "10", "4 s |"],
    ]


@pytest.mark.parametrize(("ours", "reference"), [(0.1776, 0.1776), (0.1774, 0.1830), (None, 0.1830)])
def test_a_lightgcn_that_falls_short_of_the_published_one_is_no_reference(ours, reference):
    runs = [metrics("l2q_plus", 0.19, 0)] + ([] if ours is None else [metrics("lightgcn", ours, 0)])
    lines = markdown([run | {"dataset": "gowalla", "protocol": "final"} for run in runs]).splitlines()
    assert ("as published, 0.1830 / 0.1554" in lines[0]) == (reference == 0.1830)
    assert f" {0.19 / reference:.1%} / " in lines[-1]
    runs = [run | {"dataset": "gowalla", "protocol": "holdout"} for run in runs]
    assert "published" not in markdown(runs)  # trained on less than what the published figures were


@pytest.mark.parametrize("option", ["descent.weight={}", "'descent={{rounds:3,weight:{}}}'"])
def test_settings_that_left_test_unread_stand_by_what_few_commands_say(option):
    runs = []
    for bits, weight, recall in ((256, 30, 0.2), (256, 300, 0.22), (64, 300, 0.1)):
        run = metrics("l2q_plus", recall, 0, bits / 8)
        run |= {
            "val/recall_20": run.pop("test/packed/recall_20"),
            "val/ndcg_20": run.pop("test/packed/ndcg_20"),
        }
        words = f"model=l2q_plus model.embedding_dim={bits} test=false seed=0 {option.format(weight)}"
        runs.append(run | {"command": f"python train.py {words}"})
    lines = markdown(runs).splitlines()
    assert lines[0] == "**toy**, protocol `holdout`, validation"
    assert [line.split(" |")[:3] for line in lines[4:]] == [
        ["| `l2q_plus`", " 64", " 0.1000"],
        ["| `l2q_plus`", " 256", " 0.2200"],
        ["| `l2q_plus` `weight=30`", " 256", " 0.2000"],
    ]


def test_a_picture_of_quality_against_bits(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(metrics("l2q", 0.25, 0)))
    assert main(["report", str(tmp_path), "--figure", str(tmp_path / "bits.png")]) == 0
    assert (tmp_path / "bits.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_reads_a_folder_and_names_what_is_wrong(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(metrics("l2q", 0.25, 0)))
    assert main(["report", str(tmp_path)]) == 0
    assert "| `l2q` | 8,192 | 0.2500 |" in capsys.readouterr().out
    (tmp_path / "b.json").write_text("{")
    assert main(["report", str(tmp_path)]) == 2
    assert "b.json" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "b.json").unlink()
    assert main(["report", str(tmp_path), "--figure", str(tmp_path / "no" / "bits.png")]) == 2
    assert "--figure" in capsys.readouterr().err


def test_folders_of_runs_are_read_as_they_are(tmp_path, capsys):
    """Beside its metrics.json a run leaves config.json and the manifest of its index."""
    (tmp_path / "run" / "index").mkdir(parents=True)
    for path, values in (
        ("metrics.json", metrics("l2q", 0.25, 0)),
        ("config.json", {"model": {}, "dataset": {}}),
        ("index/manifest.json", {"version": 1}),
    ):
        (tmp_path / "run" / path).write_text(json.dumps(values))
    assert [run["model"] for run in read(tmp_path)] == ["l2q"]


def test_the_table_of_a_run_shows_names_as_they_are(capsys):
    run = metrics("l2q", 0.25, 0) | {"dataset": "t [/i]", "test/recall_20": 0.25, "user_bytes": 96.0}
    show(run | {"index_bytes": 2**20, "compression": 1.0}, [20], Path("[/b] x"))
    out = capsys.readouterr().out
    assert "l2q on t [/i], protocol holdout" in out
    assert "files in [/b] x" in out


def test_every_stored_result_can_be_read():
    table = markdown(read(Path(__file__).parents[1] / "outputs" / "results"))
    assert table in (Path(__file__).parents[1] / "README.md").read_text()  # the README's table is theirs
