"""The results table, by literal values."""

import json
from pathlib import Path

import pytest
from made_runs import metrics

from l2q.cli import main
from l2q.learning.results import show
from l2q.report import markdown, overview, read


def test_means_spreads_and_shares_of_lightgcn():
    runs = [metrics("l2q_anl", 0.28, 0, 108.0), metrics("lightgcn", 0.3, 0), metrics("lightgcn", 0.4, 1)]
    lines = markdown(runs).splitlines()
    assert lines[0] == "**toy**, protocol `holdout` (random split)"
    assert lines[4] == (
        "| `lightgcn` | 8,192 | 0.3500 ± 0.0707 | 0.1750 ± 0.0354 | 100.0% / 100.0% | 100.0% / 100.0% | 2 "
        "| 10-11 | 4 s |"
    )
    assert lines[5] == "| `l2q_anl` | 864 | 0.2800 | 0.1400 | 80.0% / 80.0% | 80.0% / 80.0% | 1 | 10 | 4 s |"


def test_of_a_float_model_that_finds_nothing_there_is_no_part():
    lines = markdown([metrics("lightgcn", 0.0, 0), metrics("l2q_anl", 0.2, 0, 108.0)]).splitlines()
    assert lines[-1] == "| `l2q_anl` | 864 | 0.2000 | 0.1000 | – / – | – / – | 1 | 10 | 4 s |"


def test_the_teacher_of_fitted_codes_is_a_row_and_the_best_float_a_reference():
    codes = metrics("l2q_plus", 0.36, 0, 98.0) | {"test/teacher/recall_20": 0.4, "test/teacher/ndcg_20": 0.2}
    short = codes | {"item_bytes": 28.0}  # the same teacher behind fewer bits: one row, one seed
    lines = markdown([metrics("lightgcn", 0.3, 0), short, codes]).splitlines()
    assert lines.pop(6).startswith("| `l2q_plus` | 224 |")
    assert [line.split(" | ") for line in lines[4:]] == [
        ["| `lightgcn`", "8,192", "0.3000", "0.1500", "100.0% / 100.0%", "75.0% / 75.0%", "1", "10", "4 s |"],
        ["| `teacher`", "", "0.4000", "0.2000", "133.3% / 133.3%", "100.0% / 100.0%", "1", "", " |"],
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


def test_one_line_for_each_set_with_the_best_codes_of_every_model():
    runs = [metrics("lightgcn", 0.4, 0), metrics("l2q_anl", 0.2, 0, 48.0), metrics("l2q_anl", 0.3, 0, 108.0)]
    assert overview(runs) == ""  # its table says it all
    other = [metrics("lightgcn", 0.3, 0), metrics("l2q", 0.1, 0, 96.0), metrics("spectral", 0.2, 0)]
    no_reference = metrics("l2q", 0.1, 0) | {"dataset": "alone"}
    unread = {"val/recall_20": 0.1, "val/ndcg_20": 0.1}
    unread = {key: value for key, value in (runs[0] | unread).items() if not key.startswith("test/")}
    runs += [run | {"dataset": "gowalla", "protocol": "final"} for run in other] + [no_reference, unread]
    assert overview(runs).splitlines() == [
        "| Recall@20 / NDCG@20 | `lightgcn` | `l2q` | `l2q_anl` |",
        "|---|---:|---:|---:|",
        "| gowalla | 0.3000 / 0.1500, 8,192 bits | 33.3% / 33.3%, 768 bits |  |",
        "| toy | 0.4000 / 0.2000, 8,192 bits |  | 75.0% / 75.0%, 864 bits |",
    ]


def test_runs_of_other_options_are_rows_of_their_own():
    """Two settings of one seed are no two seeds; the best setting of LightGCN is the reference."""
    said = (("", 0.3, 0), ("", 0.4, 1), ("learning_rate=0.1", 0.2, 0), ("learning_rate=0.1 epochs=5", 0.1, 0))
    runs = [
        metrics("lightgcn", recall, seed)
        | {"command": f"python train.py seed={seed} model=lightgcn dataset=toy protocol=holdout {words}"}
        for words, recall, seed in said
    ]
    lines = markdown(runs).splitlines()
    assert [[line.split(" | ")[n] for n in (0, 2, 4, 6)] for line in lines[4:]] == [
        ["| `lightgcn`", "0.3500 ± 0.0707", "100.0% / 100.0%", "2"],
        ["| `lightgcn` `learning_rate=0.1`", "0.2000", "57.1% / 57.1%", "1"],
        ["| `lightgcn` `learning_rate=0.1` `epochs=5`", "0.1000", "28.6% / 28.6%", "1"],
    ]


def test_a_swept_option_is_named_where_the_bits_tell_it_too():
    runs = [
        metrics("l2q", 0.2, 0)
        | {
            "item_bytes": size,
            "command": f"python train.py model=l2q dataset=toy epochs=3 model.quantizer.scales={scales}",
        }
        for scales, size in (("none", 96), ("row", 104))
    ]
    assert [line.split(" | ")[:2] for line in markdown(runs).splitlines()[4:]] == [
        ["| `l2q` `scales=none`", "768"],
        ["| `l2q` `scales=row`", "832"],
    ]


def test_ways_to_draw_the_validation_part_are_tables_of_their_own():
    files = [
        {"split": "cluster"},
        {"command": "python train.py protocol.split=cluster"},
        {"split": "random"},
        {},
    ]
    titles = [markdown([metrics("l2q", 0.2, 0) | said]).splitlines()[0] for said in files]
    assert titles == [
        f"**toy**, protocol `holdout` ({split} split)" for split in ["cluster"] * 2 + ["random"] * 2
    ]


def test_sets_of_one_name_are_no_seeds_of_each_other():
    runs = [metrics("l2q", 0.2, seed) | {"train": train} for seed, train in enumerate(("a1", "b2", "b2"))]
    lines = markdown([*runs, metrics("l2q", 0.2, 3)]).splitlines()
    assert [line for line in lines if line.startswith("**")] == [
        "**toy** (train a1), protocol `holdout` (random split)",
        "**toy** (train b2), protocol `holdout` (random split)",
        "**toy**, protocol `holdout` (random split)",
    ]
    assert [line.split(" | ")[6] for line in lines if line.startswith("| `l2q`")] == ["1", "2", "1"]
    assert markdown(runs[1:]).startswith("**toy**, protocol")


def test_teachers_are_rows_of_their_own_only_where_they_differ():
    def codes(seed: int, size: float, reached: float, words: str) -> dict:
        run = metrics("l2q_plus", 0.3, seed, size) | {"command": f"python train.py seed={seed} {words}"}
        return run | {"test/teacher/recall_20": reached, "test/teacher/ndcg_20": reached / 2}

    runs = [codes(0, 28.0, 0.4, "bits=224"), codes(0, 98.0, 0.4, ""), codes(1, 98.0, 0.5, "")]
    teachers = [line for line in markdown(runs).splitlines() if "`teacher`" in line]
    assert [line.split(" | ")[2] for line in teachers] == ["0.4500 ± 0.0707"]
    runs[0] = codes(0, 28.0, 0.2, "bits=224 rank=8")
    teachers = [line for line in markdown(runs).splitlines() if "`teacher`" in line]
    assert [[line.split(" | ")[n] for n in (0, 2, 6)] for line in teachers] == [
        ["| `teacher`", "0.4500 ± 0.0707", "2"],
        ["| `teacher` `bits=224` `rank=8`", "0.2000", "1"],
    ]


def test_a_command_and_seed_count_once(tmp_path):
    for name, recall, words in (("a", 0.1, "x=1 seed=0"), ("b", 0.2, "seed=0 x=1"), ("c", 0.3, "seed=0")):
        run = metrics("l2q", recall, 0) | {"command": f"python train.py {words}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    with pytest.warns(UserWarning, match=r"a\.json has the command and seed of .*b\.json") as caught:
        runs = read(tmp_path)
    assert [run["test/packed/recall_20"] for run in runs] == [0.2, 0.3]
    assert len(caught) == 1


def test_what_cannot_stand_in_the_table_is_named_and_left_out(tmp_path, capsys):
    run = metrics("l2q", 0.25, 0)
    short = {key: value for key, value in run.items() if not key.endswith("_20")} | {"val/recall_10": 0.1}
    damaged = {
        "b": ("{", "is no metrics file of a run"),
        "c": (json.dumps(short), "has no Recall@20 and NDCG@20 of test or validation"),
        "d": ("[1]", "is no metrics file of a run"),
        "e": (json.dumps(run | {"seed": None, "protocol": 3}), "(no usable protocol, seed)"),
        "f": (json.dumps(run | {"command": "it's"}), "No closing quotation"),
        "g": (None, "cannot be read (Is a directory)"),
    }
    for name, (text, _) in damaged.items():
        path = tmp_path / name / "metrics.json"
        path.parent.mkdir()
        path.mkdir() if text is None else path.write_text(text)
    with pytest.warns(UserWarning, match="left out"):  # nothing else is there
        assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(
        "no metrics.json of a run with Recall@20; they have recall@10: choose with --metric\n"
    )
    (tmp_path / "metrics.json").write_text(json.dumps(run))
    with pytest.warns(UserWarning, match="left out") as caught:
        assert main(["report", str(tmp_path)]) == 0
    assert "| `l2q` | 8,192 | 0.2500 |" in capsys.readouterr().out
    for warning, (name, (_, why)) in zip(caught, damaged.items(), strict=True):
        assert str(warning.message).startswith(str(tmp_path / name / "metrics.json"))
        assert why in str(warning.message)


def test_models_it_does_not_know_come_last(tmp_path):
    names = ("zeta", "l2q_plus", "my_model")
    runs = [metrics(model, 0.2, 0) for model in names]
    assert [line.split("`")[1] for line in markdown(runs).splitlines()[4:]] == [
        "l2q_plus",
        "my_model",
        "zeta",
    ]
    for run in runs:
        (tmp_path / f"{run['model']}.json").write_text(json.dumps(run))
    assert main(["report", str(tmp_path), "--figure", str(tmp_path / "bits.png")]) == 0


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
    assert lines[0] == "**toy**, protocol `holdout` (random split), validation"
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
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert main(["report", str(tmp_path), "--figure", str(tmp_path / "no" / "bits.png")]) == 2
    assert "--figure" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--figure", str(tmp_path / "bits.xyz")]) == 2
    assert "cannot be written: Format 'xyz' is not supported" in capsys.readouterr().err


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
    runs = read(Path(__file__).parents[1] / "outputs" / "results")
    page = (Path(__file__).parents[1] / "docs" / "results" / "tables.md").read_text()
    assert overview(runs) in page  # the page's tables are theirs
    assert markdown(runs) in page
