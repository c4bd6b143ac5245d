"""The same bytes twice: in fresh processes that differ in hash seed, threads, folder, time zone, language and cores.

A trial is a process that fits or trains all models, in an order of its own: most of the time of one goes into imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import SMALL

from faults.frame import RIGHT, TRACEBACK, WRONG, Found, Setting

MODELS = {
    "l2q_anl": SMALL,
    "l2q": SMALL,
    "lightgcn": SMALL,
    "popularity": [],
    "spectral": [],
    "l2q_plus": ["model.bits=16"],
}
FULL, SHORT, BATCH = 120, 6, len(MODELS)

CODE = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
import l2q, torch
from pathlib import Path
from faults.children import files_of, job
from l2q.learning.checkpoints import load
from runs import table
threads, models = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(threads)
for model, words in models.items():
    place = Path("work") / model
    chosen = [f"model={model}", *words, "logger=none", "protocol.every_n_epochs=1"]
    found = job(place / "run", [*table(place / "events.csv", users=200), *chosen])
    assert found[0] == "done", found
    kept = sorted((place / "run").glob("checkpoints/*.ckpt"))
    states = [
        [hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in load(path)["state_dict"].values()]
        for path in kept
    ]
    events = l2q.read_events(place / "events.csv")
    train, test = l2q.split(events, "random", fraction=0.3, seed=1)
    index = l2q.load_index(place / "run" / "index")
    users, items = (side.values for side in (index.representations.users, index.representations.items))
    codes = l2q.quantize(users, items, bits=16)
    more = [hashlib.sha256(array.tobytes()).hexdigest() for array in codes.arrays.values()]
    asked = index.recommend("u3", k=9).items
    print(json.dumps([model, [found[3:], states, train.fingerprint, test.fingerprint, asked, more]]))
"""


def prepare(folder: Path) -> dict[str, Any]:
    return {}


def _fresh(setting: Setting, names: list[str], threads: int, name: str) -> dict[str, Any]:
    """What comes of the models ``names``, in this order, in a process of its own."""
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
        [sys.executable, "-c", CODE, str(threads), json.dumps({each: MODELS[each] for each in names})],
        cwd=place,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=280,
    )
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-300:])
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def _models(setting: Setting) -> list[Found]:
    names = list(MODELS)
    try:
        if "first" not in setting.made:
            setting.made["first"] = _fresh(setting, names, 1, "first")
        threads, order = (
            1 + int(setting.rng.integers(2)),
            [str(name) for name in setting.rng.permutation(names)],
        )
        again = _fresh(setting, order, threads, "second")
    except RuntimeError as error:
        return [Found(TRACEBACK, str(error))]
    return [
        Found(RIGHT)
        if again[name] == setting.made["first"][name]
        else Found(WRONG, f"{name} with {threads} threads, {order}, differs from 1")
        for name in names
    ]


CASES = {"models": _models}
