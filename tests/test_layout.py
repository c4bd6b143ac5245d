"""The rules of the house: who imports whom, what starts light, what may be committed."""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchmetrics", "pytorch_lightning", "numba", "hydra", "wandb", "matplotlib", "pyarrow")


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    report = (
        "import json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_imports_go_one_way():
    """The contracts of pyproject.toml, as ``make check`` runs them."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import l2q",
        "import l2q.evaluation, l2q.metrics, l2q.representations, l2q.interactions",
        "import runpy, sys\nsys.argv = ['l2q', '--help']\n"
        "try: runpy.run_module('l2q', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code",
    ],
    ids=["import l2q", "evaluation", "python -m l2q --help"],
)
def test_starts_light(code):
    modules = imported_by(code)
    assert "l2q" in modules
    assert modules.isdisjoint(HEAVY)


def test_serving_does_not_import_torch():
    assert "torch" not in imported_by("import l2q.retrieval.storage, l2q.retrieval.index, l2q.evaluation")


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_public_set_is_committed(shared_data):
    """Sets of other publishers stay out; one file of data is ours to give."""
    foreign = defaultdict(list)  # size: the files of that size
    for path in shared_data(".").rglob("*"):
        if path.is_file() and path.stat().st_size:
            foreign[path.stat().st_size].append(path)
    copies = [
        (path, other)
        for path in filter(Path.is_file, tracked_files())
        for other in foreign.get(path.stat().st_size, [])
        if path.read_bytes() == other.read_bytes()
    ]
    assert foreign
    assert copies == []


def test_one_data_file_is_committed():
    data = {".npz", ".npy", ".csv", ".gz", ".xz", ".zip", ".parquet", ".ckpt", ".pt", ".inter"}
    found = [
        path for path in tracked_files() if path.suffix in data or path.name in ("train.txt", "test.txt")
    ]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["src/l2q/data/debian.npz"]
    assert found[0].stat().st_size < 600_000


def test_no_kernel_with_threads_calls_another_with_threads():
    """Numba's workqueue, its last resort and what some libraries choose, ends the process where one does."""
    kernels: dict[str, tuple[bool, set[str]]] = {}
    for path in (ROOT / "src" / "l2q").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            said = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            if "njit" in said:
                names = {
                    call.func.id
                    for call in ast.walk(node)
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
                }
                kernels[node.name] = "parallel=True" in said, names
    assert sum(parallel for parallel, _ in kernels.values()) > 10
    for name, (parallel, called) in kernels.items():
        waiting, seen = list(called), set()
        while parallel and waiting:
            other = waiting.pop()
            if other in kernels and other not in seen:
                seen.add(other)
                assert not kernels[other][0], f"{name} calls {other}"
                waiting += kernels[other][1]
