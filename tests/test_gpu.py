"""What runs on an NVIDIA GPU beside the same on the CPU; the back ends of the propagation are in test_graph.py."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import presets
import pytest
import torch
from presets import bpr, normal, softmax
from presets import quantizer as quantizer_of

from l2q.interactions import Interactions
from l2q.models.quantizers import Identity
from l2q.retrieval.storage import load_index

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

ROOT = Path(__file__).parents[1]
QUANTIZERS = {
    "lightgcn": (Identity, {"combination": "mean"}),
    "tanh": (
        lambda: quantizer_of(estimator="tanh", scales="row", normalize=True),
        {"transform": "rotation"},
    ),
    "l2q_anl": (
        lambda: quantizer_of(estimator="clipped", scales="row", normalize=True),
        {"transform": "learned"},
    ),
}


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("objective", [bpr, softmax, partial(softmax, num_negatives=64)])
@pytest.mark.parametrize("batch", [20, 400], ids=["rows", "all"])
def test_a_step_has_the_loss_and_the_gradients_of_the_cpu(objective, name, strength, batch):
    rng = np.random.default_rng(3)
    train = Interactions.from_pairs(rng.integers(0, 150, 900), rng.integers(0, 120, 900), 150, 120)
    triplets = tuple(torch.from_numpy(rng.integers(0, size, batch)) for size in (150, 120, 120))
    found = {}
    for device in ("cpu", "cuda"):
        build, options = QUANTIZERS[name]
        quantizer = build()
        quantizer.strength = strength
        encoder = presets.encoder(
            train,
            quantizer,
            normal(),
            **{"embedding_dim": 48, "num_layers": 2, "combination": "concat", "transform": "identity"}
            | options,
        )
        recommender = presets.recommender(encoder, objective(), 0.01).to(device)
        recommender.log = lambda *_, **__: None
        loss = recommender.training_step(tuple(ids.to(device) for ids in triplets), 0)
        loss.backward()
        gradients = [p.grad.cpu() for p in recommender.parameters() if p.requires_grad]
        found[device] = loss.detach().cpu(), gradients
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("model", ["lightgcn", "l2q_anl"])
def test_the_same_seed_gives_the_same_bits(tmp_path, model):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        options = [f"model={model}", "epochs=2", "test=false", "logger=none", f"hydra.run.dir={folder}"]
        subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *options], check=True, cwd=tmp_path, timeout=300
        )
    assert torch.cuda.get_device_name() in json.loads((folders[0] / "metrics.json").read_text())["hardware"]
    one, two = (load_index(folder / "index") for folder in folders)
    users = np.arange(one.num_users)
    for first, second in zip(one.search(users, 20), two.search(users, 20), strict=True):
        np.testing.assert_array_equal(first, second)
