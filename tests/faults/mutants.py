"""Mutation testing: one change of the code at a time, which a test of its module should notice.

    python tests/faults/mutants.py --only metrics,packing --count 20 --seed 0

Every mutant is drawn, put into a copy of ``src``, and its tests are run there in a process of their own; what they
compile is kept for the next one. Those that survive are listed with their line. Mutants are comparisons, operators of
arithmetic, numbers, ``and`` and ``or``, and conditions, each turned into another.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401
import numba  # noqa: F401
import numpy as np
import pytest
import scipy.sparse  # noqa: F401
import torch
import torchmetrics  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    "metrics": ("metrics.py", "test_metrics.py"),
    "packing": ("kernels/packing.py", "test_packing.py"),
    "quantizers": ("models/quantizers.py", "test_quantizers.py"),
    "splits": ("data/splits.py", "test_splits.py"),
    "storage": ("retrieval/storage.py", "test_storage.py"),
}
OTHER = {
    **{
        ast.Lt: ast.LtE,
        ast.LtE: ast.Lt,
        ast.Gt: ast.GtE,
        ast.GtE: ast.Gt,
        ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq,
    },
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{
        ast.And: ast.Or,
        ast.Or: ast.And,
        ast.In: ast.NotIn,
        ast.NotIn: ast.In,
        ast.Is: ast.IsNot,
        ast.IsNot: ast.Is,
    },
}


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Nodes that can be changed, and how."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
            yield node, "comparison"
        elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OTHER:
            yield node, "operator"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node, "number"
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node, "condition"


def mutant(source: str, number: int) -> tuple[str, str]:
    """The ``number``-th mutant of a module, and what it changes."""
    tree = ast.parse(source)
    node, how = list(places(tree))[number]
    before = ast.unparse(node).splitlines()[0]
    if how == "comparison":
        node.ops[0] = OTHER[type(node.ops[0])]()  # type: ignore[attr-defined]
    elif how == "operator":
        node.op = OTHER[type(node.op)]()  # type: ignore[attr-defined]
    elif how == "number":
        node.value += 1  # type: ignore[attr-defined]
    else:
        node.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]
    after = ast.unparse(node).splitlines()[0]
    line = node.lineno  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(tree)), f"line {line}: `{before}` became `{after}`"


def survives(place: Path, test: str) -> bool:
    """Whether the tests pass on a copy of ``src``, in a fork of this process, which has the libraries already and this
    package not yet."""
    pid = os.fork()
    if not pid:
        code = 3
        try:
            signal.alarm(600)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            os.chdir(ROOT)
            sys.dont_write_bytecode = True
            sys.path.insert(0, str(place / "src"))
            options = [
                "-q",
                "-x",
                "-m",
                "not slow",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                "-o",
                "timeout=0",
            ]
            code = int(pytest.main([*options, f"tests/{test}"]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument(
        "--count", type=int, default=40, help="mutants of each module; all where there are fewer"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    for name in given.only.split(","):
        file, test = TARGETS[name]
        source = (ROOT / "src" / "l2q" / file).read_text()
        total = len(list(places(ast.parse(source))))
        chosen = np.random.default_rng(given.seed).permutation(total)[: given.count]
        if not survives(ROOT, test):
            parser.error(f"tests/{test} fails without a mutant")
        left = []
        with tempfile.TemporaryDirectory(prefix="l2q-mutants-") as folder:
            place = Path(folder) / "src"
            shutil.copytree(ROOT / "src", place, ignore=shutil.ignore_patterns("*.nbi", "*.nbc"))
            for tried, number in enumerate(chosen, 1):
                text, change = mutant(source, int(number))
                (place / "l2q" / file).write_text(text)
                if file.startswith("kernels"):  # what others have compiled of it stays as it was
                    for compiled in place.rglob("*.nbi"):
                        compiled.unlink()
                if survives(Path(folder), test):
                    left.append(change)
                    print(f"  {name} {change}: survives", file=sys.stderr, flush=True)
                print(f"{name}: {tried} of {len(chosen)}, {len(left)} survive", file=sys.stderr, flush=True)
        print(
            f"{name}: {len(chosen)} of {total} mutants, {len(chosen) - len(left)} killed, {len(left)} survive"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
