"""What ``make coverage`` ends with: the share of the branches of ``src`` that tests take, and where most are not taken.

A branch is one of the ways behind a condition or a loop. Functions that Numba compiles are left out, as are the files
that ``pyproject.toml`` lists: coverage cannot see into them. Tests hold what they give to plain NumPy.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from coverage import Coverage

GOAL = 92.0
"""Percent of the branches."""
SHOWN = 15
ROOT = Path(__file__).resolve().parents[1]


def main(parts: Path = ROOT / ".cache" / "coverage") -> int:
    """Puts the parts together, one of each module of tests; 1 where fewer branches are taken than ``GOAL``."""
    both = Coverage(data_file=str(parts / "together"))
    files = sorted(path for path in parts.glob("test_*") if not path.suffix)
    both.combine([str(path) for path in files], strict=True, keep=True)
    both.save()
    with tempfile.TemporaryDirectory() as folder:
        both.json_report(outfile=f"{folder}/report.json", include=[f"{ROOT}/src/*"])
        report = json.loads(Path(folder, "report.json").read_text("utf-8"))
    found = sorted(
        (each["summary"]["missing_branches"], each["summary"]["num_branches"], name)
        for name, each in report["files"].items()
    )
    for missing, of, name in found[: -SHOWN - 1 : -1]:
        print(f"{missing:5,} of {of:5,} not taken in {name}")
    totals = report["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    print(
        f"{len(files)} modules of tests take {totals['covered_branches']:,} of {totals['num_branches']:,} branches, "
        f"{branches:.1f} % (goal: {GOAL:.0f} %), and {lines:.1f} % of {totals['num_statements']:,} lines"
    )
    return int(branches < GOAL)


if __name__ == "__main__":
    sys.exit(main())
