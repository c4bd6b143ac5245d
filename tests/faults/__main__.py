"""``make faults``: every kind of fault, or some, as often as asked; one line each, exit code 1 where one did harm.

make faults                                              at full size: hours
make faults ARGS="--only kills --count 20 --seed 7"
make faults ARGS="--only corruptions.checkpoint"         one case of a kind
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

KINDS = (
    "kills",
    "signals",
    "corruptions",
    "fuzz",
    "guided",
    "resources",
    "network",
    "service",
    "determinism",
    "soak",
)
QUIET = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2", "WANDB_MODE": "offline", "MPLBACKEND": "Agg"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make faults", description="Faults, injected for real.")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, or kind.case, with commas")
    parser.add_argument("--count", type=int, help="trials of each kind (its full size)")
    parser.add_argument("--short", action="store_true", help="a few trials of each kind, as in make test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="go on so long, instead of a count (soak: 120)")
    given = parser.parse_args(argv)
    asked: dict[str, list[str]] = {}
    for word in given.only.split(","):
        kind, _, case = word.partition(".")
        if kind not in KINDS:
            parser.error(f"--only {word}: one of {', '.join(KINDS)}")
        asked.setdefault(kind, []).extend(filter(None, [case]))
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    harm = 0
    for kind, cases in asked.items():
        module = importlib.import_module(f"faults.{kind}")
        if unknown := set(cases) - set(module.CASES):
            parser.error(f"--only {kind}.{min(unknown)}: one of {', '.join(module.CASES)}")
        harm += one(module, cases or None, given)
    return 1 if harm else 0


def one(module: ModuleType, cases: list[str] | None, given: argparse.Namespace) -> int:
    """Runs a kind and says what came of it; how many trials did harm."""
    from faults.frame import run

    usual = module.SHORT if given.short else getattr(module, "FULL", None)
    count = None if given.minutes else given.count or usual
    minutes = given.minutes or getattr(module, "MINUTES", 0)
    with tempfile.TemporaryDirectory(prefix="l2q-faults-") as folder:
        tally = run(module, seed=given.seed, count=count, minutes=minutes, folder=Path(folder), cases=cases)
    for line in [*(tally.line(case) for case in tally.counts), *tally.noted]:
        print(f"  {line}", file=sys.stderr)
    print(f"{tally.line()}; {tally.seconds:,.0f} s", flush=True)
    return len(tally.bad)


if __name__ == "__main__":
    sys.exit(main())
