"""What decides between runs: by SciPy, by hand, and through the report's own tables."""

import json
import math

import numpy as np
import pytest
from made_runs import make_run, make_sweep
from scipy import stats

from l2q.cli import main
from l2q.errors import L2QError
from l2q.report import gather, holm, paired
from l2q.report.runs import per_user
from l2q.report.statistics import baseline, compare


@pytest.mark.parametrize("number", [5, 40, 3000])
def test_pairs_are_compared_as_scipy_does(number):
    rng = np.random.default_rng(number)
    ours, theirs = rng.normal(0.1, 1, number), rng.normal(0, 1, number)
    ours[: number // 3] = theirs[: number // 3]  # most users find the same in both rankings
    found = paired(ours, theirs)
    t_test = stats.ttest_rel(ours, theirs)
    assert found.t_test == pytest.approx(t_test.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(t_test.confidence_interval(0.95)), rel=1e-12)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(ours, theirs).pvalue, rel=1e-12)
    # and by the formulas that the module gives
    d = ours - theirs
    s = math.sqrt(((d - d.mean()) ** 2).sum() / (number - 1))
    half = stats.t.ppf(0.975, number - 1) * s / math.sqrt(number)
    assert found.effect == pytest.approx(d.mean() / s)
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert found.t_test == pytest.approx(2 * stats.t.sf(abs(d.mean() / s * math.sqrt(number)), number - 1))


def test_wilcoxon_by_hand():
    """Differences 1, 2, 3, -4: the ranks of the negative ones sum to 4; of the 16 signs 7 have a sum of 4 or less."""
    assert paired(np.array([1.0, 2.0, 3.0, -4.0]), np.zeros(4)).wilcoxon == pytest.approx(2 * 7 / 16)


def test_pairs_without_any_difference_and_with_one_and_the_same():
    same = np.array([0.1, 0.2, 0.3])
    alike = paired(same, same)
    assert (alike.difference, alike.effect, alike.t_test, alike.wilcoxon) == (0, 0, 1, 1)
    above = paired(np.array([0.5, 1.0, 1.5]), np.array([0.25, 0.75, 1.25]))
    assert (above.difference, above.low, above.high, above.effect) == (0.25, 0.25, 0.25, math.inf)
    assert above.t_test == 0
    with pytest.raises(L2QError, match="1 and 1 users"):
        paired(same[:1], same[:1])


def test_holm_by_hand():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1 is .04 .06 .06 .04, and the last may not fall below the one before it
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_row_is_compared_by_each_users_mean_over_seeds(tmp_path):
    report = gather([make_sweep(tmp_path / "runs")])
    (found,) = report.findings
    assert found.base is not None
    assert found.base.model == "lightgcn"
    assert [each.row.model for each in found.comparisons] == ["popularity", "l2q", "l2q_anl"] * 2
    means = {}
    for model in ("lightgcn", "l2q_anl"):
        values = [
            np.load(tmp_path / "runs" / f"model={model},seed={seed}" / "per_user.npz")["recall_20"]
            for seed in range(3)
        ]
        means[model] = np.mean(values, axis=0)
    expected = stats.ttest_rel(means["l2q_anl"], means["lightgcn"])
    ours = found.comparisons[2]
    assert ours.paired.t_test == pytest.approx(expected.pvalue, rel=1e-12)
    assert ours.paired.users == 200
    assert ours.seeds == (3, 3)
    alone = [each.paired.t_test for each in found.comparisons]
    assert [each.t_test for each in found.comparisons] == holm(alone)  # one correction for all six


def test_a_verdict_needs_both_tests_after_correction(tmp_path):
    report = gather([make_sweep(tmp_path / "runs")])
    verdicts = {each.row.model: each.verdict for each in report.findings[0].comparisons[:3]}
    assert verdicts["popularity"] == "worse"
    assert verdicts["l2q"] == "worse"
    same = make_run(tmp_path / "same", "l2q_plus", 0, recall=0.5)
    other = np.load(tmp_path / "runs" / "model=lightgcn,seed=0" / "per_user.npz")
    np.savez_compressed(same / "per_user.npz", allow_pickle=False, **other)
    report = gather([tmp_path / "runs" / "model=lightgcn,seed=0", same])
    assert [each.verdict for each in report.findings[0].comparisons] == ["–", "–"]


def test_users_of_another_test_part_are_not_compared(tmp_path):
    make_run(tmp_path / "a", "lightgcn")
    other = make_run(tmp_path / "b", "l2q")
    kept = dict(np.load(other / "per_user.npz"))
    np.savez_compressed(other / "per_user.npz", allow_pickle=False, **kept | {"users": kept["users"] + 1})
    make_run(tmp_path / "c", "l2q_anl")
    assert [each.row.model for each in gather([tmp_path]).findings[0].comparisons] == ["l2q_anl"] * 2


def test_users_in_another_order_are_the_same_users(tmp_path):
    make_run(tmp_path / "a", "lightgcn")
    other = make_run(tmp_path / "b", "l2q")
    before = gather([tmp_path]).findings[0].comparisons[0].paired
    kept = {key: values[::-1] for key, values in np.load(other / "per_user.npz").items()}
    np.savez_compressed(other / "per_user.npz", allow_pickle=False, **kept)
    assert gather([tmp_path]).findings[0].comparisons[0].paired == before


def test_a_damaged_file_of_users_is_left_out_and_said(tmp_path):
    make_run(tmp_path / "a", "lightgcn")
    (make_run(tmp_path / "b", "l2q") / "per_user.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.warns(UserWarning, match=r"b/per_user\.npz cannot be read") as caught:
        assert gather([tmp_path]).findings[0].comparisons == []
    assert len(caught) == 1  # though two measures ask for it


def test_users_of_a_run_without_the_file_are_none(tmp_path):
    folder = make_run(tmp_path / "a")
    (run,) = gather([folder]).runs
    assert per_user(run, "recall_7") is None
    (folder / "per_user.npz").unlink()
    assert per_user(run, "recall_20") is None


def test_the_baseline_is_the_row_that_is_asked_for(tmp_path, capsys):
    make_sweep(tmp_path / "runs")
    for rate in ("0.1", "0.01"):
        make_run(tmp_path / f"rate{rate}", "l2q_plus", 0, f"learning_rate={rate}")
    block = gather([tmp_path]).findings[0].block
    chosen = baseline(block, "l2q_plus learning_rate=0.01")
    assert chosen is not None
    assert chosen.runs[0]["command"].endswith("learning_rate=0.01")
    assert baseline(block, "l2q_plus 256 learning_rate=0.1") is not None
    assert compare(block, chosen)[0].paired.users == 200
    assert main(["report", str(tmp_path), "--baseline", "l2q_plus"]) == 2
    assert "--baseline l2q_plus names 2 rows; add an option" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--baseline", "bpr"]) == 2
    assert "--baseline bpr names no row; there are popularity; lightgcn; l2q; " in capsys.readouterr().err


def test_without_lightgcn_the_first_row_is_the_baseline(tmp_path):
    for model in ("l2q_anl", "popularity"):
        make_run(tmp_path / model, model)
    base = gather([tmp_path]).findings[0].base
    assert base is not None
    assert base.model == "popularity"


def test_the_best_run_is_the_one_of_validation_and_has_its_command(tmp_path):
    for seed, (val, test) in enumerate(((0.3, 0.1), (0.2, 0.9))):
        folder = make_run(tmp_path / f"{seed}", "l2q", seed)
        values = json.loads((folder / "metrics.json").read_text())
        values |= {"val/recall_20": val, "test/packed/recall_20": test}
        (folder / "metrics.json").write_text(json.dumps(values))
    make_run(tmp_path / "2", "popularity", 0)
    values = json.loads((tmp_path / "2" / "metrics.json").read_text())
    values = {key: value for key, value in values.items() if not key.startswith("val/")}
    (tmp_path / "2" / "metrics.json").write_text(json.dumps(values))
    (table,) = gather([tmp_path]).findings[0].best
    said = dict(table.rows)
    assert said["command"] == "`python train.py model=l2q seed=0`"
    assert (said["Recall@20, validation"], said["Recall@20, test"]) == ("0.3000", "0.1000")
    assert "among 2 of 3 runs; 1 without a validation part cannot be chosen" in table.note


def test_where_no_run_has_validation_the_choice_by_test_is_said(tmp_path):
    for seed in range(2):
        folder = make_run(tmp_path / f"{seed}", "l2q", seed, recall=0.3 + seed / 10)
        values = json.loads((folder / "metrics.json").read_text())
        values = {key: value for key, value in values.items() if not key.startswith("val/")}
        (folder / "metrics.json").write_text(json.dumps(values))
    (table,) = gather([tmp_path]).findings[0].best
    assert dict(table.rows)["model"] == "`l2q`, seed 1"
    assert "settings must not be chosen by it" in table.note
