"""The same settings give the same index to the byte, whatever the number of threads."""

import numpy as np
import pytest

import l2q

FEW = {"descent": {"rounds": 1, "intruder_rounds": 1}, "embeddings": {"weight": 1.0, "steps": 12}}
MODELS = {
    "fast": ("l2q_plus", 96, {"model": FEW}),
    "best": ("l2q_plus", 96, {"model": FEW | {"effort": "best"}}),
    "spectral": ("spectral", None, {"model": {"dim": 128}}),
    "lightgcn": ("lightgcn", None, {"epochs": 2, "batch_size": 1024}),
    "l2q_anl": ("l2q_anl", 96, {"epochs": 2, "batch_size": 1024, "annealing": "guidance"}),
}


@pytest.fixture(scope="module")
def train() -> l2q.Interactions:
    """So many items that decompositions are of matrices which a BLAS shares out."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(700), 12)
    items = (users % 5) * 60 + np.minimum(rng.exponential(30, len(users)).astype(int), 119)
    return l2q.Interactions.from_pairs(users, items, 700, 360)


@pytest.mark.parametrize("name", MODELS)
def test_an_index_has_the_same_bytes_for_any_number_of_threads(train, threads, name):
    model, bits, settings = MODELS[name]
    found = []
    for count in (1, 2, 4):
        threads(count)
        found.append(l2q.fit(train, model, bits=bits, **settings).arrays)
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for part, array in found[0].items():
            np.testing.assert_array_equal(array, other[part], err_msg=part)


def test_codes_of_floats_have_the_same_bytes_for_any_number_of_threads(threads):
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((size, 200), dtype=np.float32) for size in (900, 500))
    found = []
    for count in (1, 2, 4):
        threads(count)
        found.append(l2q.quantize(users, items, bits=200).arrays)
    for other in found[1:]:
        for part, array in found[0].items():
            np.testing.assert_array_equal(array, other[part], err_msg=part)
