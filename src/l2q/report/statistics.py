"""Whether two rows differ: paired over users, on test.

Of user u, d_u is the value of one row minus that of the other, each averaged over the row's seeds. Over n users:

    difference   mean(d), with Student's 95 % interval mean(d) ± t(.975, n - 1) s / sqrt(n)
    d_z          mean(d) / s: the effect in standard deviations of the differences (Cohen 1988; Lakens 2013, eq. 7)
    p            paired t-test; Wilcoxon's signed-rank test, users without a difference left out (Wilcoxon 1945)
    corrected    Holm (1979): of m comparisons, the i-th smallest p times m - i + 1, never below one before it

s is the standard deviation with n - 1. Users are the sample: what is said holds for other users of the same data,
not for other data. The spread over seeds stands beside it in the tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l2q.errors import L2QError
from l2q.report.measures import Measure
from l2q.report.rows import Block, Row
from l2q.report.runs import per_user

LEVEL = 0.05


def spread(values: Sequence[float], measure: Measure | None = None) -> str:
    """Mean, and standard deviation where there is more than one.

    >>> spread([0.3, 0.4])
    '0.3500 ± 0.0707'
    """
    text = measure.text if measure else "{:.4f}".format
    shown = text(statistics.mean(values))
    return shown if len(values) == 1 else f"{shown} ± {text(statistics.stdev(values))}"


@dataclass(frozen=True)
class Paired:
    """Of one row against another; see the module's formulas. ``low`` and ``high`` bound the difference."""

    users: int
    difference: float
    low: float
    high: float
    effect: float
    t_test: float
    wilcoxon: float


def paired(ours: np.ndarray, theirs: np.ndarray) -> Paired:
    """``ours`` and ``theirs``: (n,) values of the same users in the same order.

    Where no two differ, p is 1 and the effect 0. Raises L2QError for fewer than two users.
    """
    import warnings

    from scipy import stats

    if len(ours) != len(theirs) or len(ours) < 2:
        raise L2QError(f"{len(ours)} and {len(theirs)} users cannot be compared in pairs")
    differences = ours - theirs
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if not differences.any():
        return Paired(len(ours), 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all differ by the same: t is infinite
        found = stats.ttest_rel(ours, theirs)
        low, high = map(float, found.confidence_interval(0.95)) if deviation else (mean, mean)
        signed = stats.wilcoxon(differences)
    effect = mean / deviation if deviation else float(np.copysign(np.inf, mean))
    return Paired(len(ours), mean, low, high, effect, float(found.pvalue), float(signed.pvalue))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction of p values, in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, worst = [0.0] * len(values), 0.0
    for place, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - place) * values[number]))
        corrected[number] = worst
    return corrected


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline in one measure. ``t_test`` and ``wilcoxon`` are corrected, ``paired`` has both as
    they came out. ``seeds``: of the row and of the baseline."""

    row: Row
    measure: Measure
    paired: Paired
    t_test: float
    wilcoxon: float
    seeds: tuple[int, int]

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where both tests say so at 5 % after correction and agree with the difference."""
        if max(self.t_test, self.wilcoxon) >= LEVEL:
            return "–"
        return "better" if (self.paired.difference > 0) != self.measure.less_is_better else "worse"


def compare(block: Block, baseline: Row) -> list[Comparison]:
    """Every other row of a block against ``baseline``, by measure, as far as the runs kept ``per_user.npz``.

    One correction spans all comparisons of the block. Rows measured on other users than the baseline are left out.
    """
    found: list[tuple[Row, Measure, Paired, tuple[int, int]]] = []
    for measure in block.measures:
        reference = _over_seeds(baseline, measure)
        if reference is None:
            continue
        for row in block.rows:
            other = None if row is baseline else _over_seeds(row, measure)
            if other is None or not np.array_equal(other[0], reference[0]) or len(other[0]) < 2:
                continue
            found.append((row, measure, paired(other[1], reference[1]), (other[2], reference[2])))
    t_tests = holm([each.t_test for _, _, each, _ in found])
    signed = holm([each.wilcoxon for _, _, each, _ in found])
    return [
        Comparison(row, measure, each, t_test, wilcoxon, seeds)
        for (row, measure, each, seeds), t_test, wilcoxon in zip(found, t_tests, signed, strict=True)
    ]


def _over_seeds(row: Row, measure: Measure) -> tuple[np.ndarray, np.ndarray, int] | None:
    """(users, their means over seeds, number of seeds) of a row; None where no run kept them."""
    if row.part != "test" or row.model == "teacher":
        return None
    kept = [values for run in row.runs if (values := per_user(run, measure.key))]
    kept = [values for values in kept if np.array_equal(values[0], kept[0][0])]
    if not kept:
        return None
    return kept[0][0], np.mean([values for _, values in kept], axis=0), len(kept)


def baseline(block: Block, wanted: str | None) -> Row | None:
    """The row of a block that others are compared with: the one that ``wanted`` names, by default the best LightGCN,
    then the first row of the table. None where the block has no row of that name.

    ``wanted``: a model, and options or bits where it has several rows: ``"l2q_anl learning_rate=0.01 864"``.
    Raises L2QError where several rows have the name.
    """
    rows = [row for row in block.rows if row.model != "teacher"]
    if wanted is None:
        floats = [row for row in rows if row.model == "lightgcn"]
        return max(floats, key=lambda row: row.means) if floats else next(iter(rows), None)
    words = set(wanted.replace("`", "").split())
    found = [row for row in rows if words <= {*row.name.replace("`", "").split(), row.model, str(row.bits)}]
    exact = [row for row in found if set(row.name.replace("`", "").split()) == words]
    found = exact if len(exact) == 1 else found
    if len(found) > 1:
        names = "; ".join(f"{row.name} {row.bits}".replace("`", "") for row in found[:6])
        raise L2QError(f"--baseline {wanted} names {len(found)} rows; add an option or the bits: {names}")
    return found[0] if found else None
