"""A graph in parts: products with it, and the batches that are drawn from it, have the bits of one process. The test
starts this file in several processes."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import ROOT, composed, environment, table

from l2q import processes
from l2q.data.sampling import TripletSampler, _permutation
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.learning.parallel import drawing, edges
from l2q.models.graph import Graph, Propagation

# users, items, pairs, about; entries of a piece, steps of a block
SHAPES = {
    "small": (50, 30, 400, 10, 7),
    "long rows": (5, 400, 900, 100, 50),
    "few": (3, 3, 2, 2, 1),
    "one piece": (1000, 300, 9000, 1 << 20, 1000),
    "has all": (40, 7, 200, 5, 1),
}


def made(users: int, items: int, pairs: int, seed: int) -> Interactions:
    """Most pairs are of some users and some items; others have none, and one user has all items in small catalogs."""
    rng = np.random.default_rng(seed)
    u, i = (rng.random(pairs) ** 2 * users).astype(int), (rng.random(pairs) ** 3 * items).astype(int)
    if items < 10 < pairs:
        u, i = np.append(u, [4] * items), np.append(i, range(items))
    return Interactions.from_pairs(u, i, users, items)


def check(train: Interactions, seed: int) -> None:
    whole = Propagation(Graph.from_interactions(train))
    part = edges.GraphPart.from_interactions(train)
    first, end = part.own
    np.testing.assert_array_equal(part.indptr, whole.graph.indptr)
    own = slice(part.indptr[first], part.indptr[end])
    np.testing.assert_array_equal(part.indices, whole.graph.indices[own])
    shared = edges.EdgePropagation(part)
    rng = np.random.default_rng(seed)
    nodes = part.num_nodes
    X = torch.from_numpy(rng.standard_normal((nodes, 21)).astype(np.float32))
    assert torch.equal(shared.hop(X), whole.hop(X))
    for share in (0.0, 0.3, 1.0):
        rows = torch.from_numpy(np.flatnonzero(rng.random(nodes) < share))
        assert torch.equal(shared.hop(X, rows), whole.hop(X, rows))
        assert torch.equal(shared.hop_from(rows, X[rows]), whole.hop_from(rows, X[rows]))
    with pytest.raises(ValueError, match="ascend"):
        shared.hop(X, torch.tensor([1, 0]))
    number, size = processes.rank(), processes.size()
    order = drawing.shuffled(len(train), np.uint64(seed))
    mine = slice(*(len(train) * n // size for n in (number, number + 1)))
    np.testing.assert_array_equal(order, _permutation(len(train), np.uint64(seed))[mine])
    for candidates, by_users in product((0, 1, 3), (False, True)):
        one = TripletSampler(train, 64, seed, candidates, by_users)
        ours = drawing.PartSampler(one, part.own, part.indptr, part.indices)
        for expected, batch in zip(one.epoch(2), ours.epoch(2), strict=True):
            for a, b in zip(expected, batch, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_a_graph_in_parts_has_the_products_and_batches_of_a_whole_one(tmp_path, size):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [*start, str(Path(__file__).resolve())],
        cwd=tmp_path,
        env=environment(tmp_path) | one_thread | {"PYTHONPATH": f"{ROOT}/src:{ROOT}/tests"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr


def test_a_graph_in_parts_is_multiplied_on_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_joined", [2])
    monkeypatch.setattr(edges, "has_gpu", lambda: True)
    words = [*table(tmp_path / "events.csv"), "model=lightgcn", "parallel=edges"]
    with pytest.raises(
        L2QError, match=r"^parallel=edges multiplies with the graph on CPUs; give trainer=cpu"
    ):
        edges.Edges().check(composed(*words, "trainer.accelerator=auto"))
    edges.Edges().check(composed(*words, "trainer=cpu"))
    words += ["model.transform=itq", "trainer=cpu"]
    with pytest.raises(L2QError, match=r"^model.transform=itq mixes all columns, of which parallel=edges"):
        edges.Edges().check(composed(*words))


if __name__ == "__main__":
    processes.join()
    processes.connect()
    for case, (*shape, piece, block) in enumerate(SHAPES.values()):
        edges.PIECE, drawing.BLOCK = piece, block
        check(made(*shape, seed=case), case)
    processes.leave()
