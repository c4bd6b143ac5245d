"""The same bytes twice: in fresh processes that differ in hash seed, threads, folder, time zone, language and cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import EVERY_EPOCH, SMALL

from faults.frame import RIGHT, TRACEBACK, WRONG, Found, Setting

FULL, SHORT = 120, 2

CODE = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
import l2q, torch
from pathlib import Path
from faults.children import files_of, job
from l2q.learning.checkpoints import load
from runs import table
threads, words = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(threads)
place = Path("work")
found = job(place / "run", [*table(place / "events.csv", users=200), *words])
assert found[0] == "done", found
kept = sorted((place / "run").glob("checkpoints/*.ckpt"))
states = [
    [hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in load(path)["state_dict"].values()]
    for path in kept
]
events = l2q.read_events(place / "events.csv")
train, test = l2q.split(events, "random", fraction=0.3, seed=1)
index = l2q.load_index(place / "run" / "index")
codes = l2q.quantize(*(side.values for side in (index.representations.users, index.representations.items)), bits=16)
more = [hashlib.sha256(array.tobytes()).hexdigest() for array in codes.arrays.values()]
print(json.dumps([found[3:], states, train.fingerprint, test.fingerprint, index.recommend("u3", k=9).items, more]))
"""


def prepare(folder: Path) -> dict[str, Any]:
    return {}


def _fresh(setting: Setting, words: list[str], threads: int, name: str) -> Any:
    place = setting.folder / name
    (place / "work").mkdir(parents=True)
    rng = setting.rng
    variables = {
        "PYTHONHASHSEED": str(rng.integers(2**32)),
        "TZ": str(rng.choice(["UTC", "Asia/Kathmandu", "America/New_York"])),
        "LC_ALL": str(rng.choice(["C", "C.UTF-8", "POSIX"])),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": "2",
        "PYTHONUTF8": "1",
        # the code is a word of the command, and the folder is another one
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(threads), json.dumps(words)],
        cwd=place,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=280,
    )
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-300:])
    return json.loads(done.stdout.splitlines()[-1])


def _model(*words: str) -> Callable[[Setting], Found]:
    chosen = [*words, "logger=none", EVERY_EPOCH]

    def trial(setting: Setting) -> Found:
        name = words[0]
        try:
            if name not in setting.made:
                setting.made[name] = _fresh(setting, chosen, 1, "first")
            threads = 1 + int(setting.rng.integers(2))
            again = _fresh(setting, chosen, threads, "second")
        except RuntimeError as error:
            return Found(TRACEBACK, str(error))
        same = again == setting.made[name]
        return Found(RIGHT if same else WRONG, f"{name} with {threads} threads differs from 1")

    return trial


CASES = {
    "l2q_anl": _model("model=l2q_anl", *SMALL),
    "l2q": _model("model=l2q", *SMALL),
    "lightgcn": _model("model=lightgcn", *SMALL),
    "popularity": _model("model=popularity"),
    "spectral": _model("model=spectral"),
    "l2q_plus": _model("model=l2q_plus", "model.bits=16"),
}
