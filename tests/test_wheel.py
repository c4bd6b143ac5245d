"""A wheel brings all that a caller from Python needs: code, kernels, settings and the embedded set."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

EXAMPLE = """
import l2q
from pathlib import Path

assert Path(l2q.__file__).is_relative_to(HERE), l2q.__file__
data = l2q.load_dataset("debian")
train, test = l2q.split(data.train, "random", fraction=0.2, seed=0)
small = {"filter": {"rank": 32}, "embeddings": {"weight": 0}, "descent": {"intruder_rounds": 0, "rounds": 1}}
index = l2q.fit(train, "l2q_plus", bits=32, seed=0, model=small)
recall = l2q.evaluate(index, test, ks=[20]).metrics["recall_20"]
assert recall > 0.3, recall  # by popularity alone it is .31 on the set's own test part
index.save("index")
opened = l2q.load_index("index")
assert opened.recommend("ffmpeg", k=10).items == index.recommend("ffmpeg", k=10).items
assert len(opened.similar("libavcodec59", k=10).items) == 10
assert l2q.fit(train, "l2q_anl", bits=24, epochs=1, batch_size=32768).dims == (8, 8, 8)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (found,) = folder.glob("l2q-*.whl")
    return found


def test_a_wheel_holds_every_module_and_setting(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"l2q/{path.relative_to(ROOT / 'src' / 'l2q')}" for path in (ROOT / "src" / "l2q").rglob("*.py")
    }
    wanted |= {f"l2q/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert wanted | {"l2q/data/debian.npz"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "outputs"))]


def test_the_example_runs_from_an_installed_wheel_outside_the_clone(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(installed)]
    subprocess.run([*command, str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(installed), "L2Q_CACHE": str(tmp_path / "cache")}
    code = EXAMPLE.replace("HERE", repr(str(installed)))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
