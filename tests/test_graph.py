"""Every back end of the propagation against a dense A_hat: values, gradients, rows, empty and odd shapes."""

import copy

import numpy as np
import pytest
import torch

from l2q.interactions import Interactions
from l2q.models.graph import Graph, Propagation

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
PLACES = [
    ("numba", "cpu"),
    ("torch", "cpu"),
    *(pytest.param(b, "cuda", marks=needs_gpu) for b in ("torch", "triton")),
]


def random_interactions(seed=0, num_users=23, num_items=31, num_pairs=140):
    """Skewed degrees; the last two users and the last three items stay isolated."""
    generator = np.random.default_rng(seed)
    users = generator.integers(0, num_users - 2, num_pairs)
    items = (generator.random(num_pairs) ** 2 * (num_items - 3)).astype(int)
    return Interactions.from_pairs(users, items, num_users, num_items)


def dense_adjacency(interactions):
    """A_hat in float64, edge by edge."""
    num_users, num_nodes = interactions.num_users, interactions.num_users + interactions.num_items
    adjacency = np.zeros((num_nodes, num_nodes))
    for user in range(num_users):
        for item in interactions[user]:
            adjacency[user, num_users + item] = adjacency[num_users + item, user] = 1
    degrees = adjacency.sum(axis=1)
    for v, w in np.argwhere(adjacency):
        adjacency[v, w] = 1 / np.sqrt(degrees[v] * degrees[w])
    return torch.from_numpy(adjacency)


def embeddings(num_nodes, dim, dtype=torch.float32, seed=1, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_nodes, dim, generator=generator, dtype=dtype).to(device).requires_grad_()


def test_graph_of_a_path_has_its_hand_worked_weights():
    # user 0 - item 0 - user 1 - item 1, and item 2 alone
    graph = Graph.from_interactions(Interactions.from_pairs([0, 1, 1], [0, 0, 1], 2, 3))
    assert graph.indptr.tolist() == [0, 1, 3, 5, 6, 6]
    assert graph.indices.tolist() == [2, 2, 3, 0, 1, 1]
    assert graph.indices.dtype == np.int32
    half = 2**-0.5
    expected = [[0, 0, half, 0, 0], [0, 0, 0.5, half, 0], [half, 0.5, 0, 0, 0], [0, half, 0, 0, 0], [0] * 5]
    np.testing.assert_allclose(graph.to_torch(torch.device("cpu"), torch.float32).to_dense(), expected, 1e-6)
    for backend in ("numba", "torch"):
        np.testing.assert_allclose(Propagation(graph, backend)(torch.eye(5)), expected, 1e-6)


@pytest.mark.parametrize("num_items", [1, 256, 1024, 1025, 4000, 70_000])
def test_items_see_their_users_in_ascending_order_whatever_the_number_of_ranges(num_items):
    interactions = random_interactions(num_users=90, num_items=num_items + 3, num_pairs=4000)
    graph, expected = Graph.from_interactions(interactions), interactions.to_csr(np.int8).tocsc()
    assert np.array_equal(graph.indptr[90:], len(interactions) + expected.indptr)
    assert np.array_equal(graph.indices[len(interactions) :], expected.indices)
    ends = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr)), graph.indices
    roots = (np.maximum(np.diff(graph.indptr), 1) ** -0.5).astype("f4")
    assert np.array_equal(graph.values, np.prod([roots[e] for e in ends], axis=0))


def test_products_start_at_a_line_of_the_cache():
    propagation = Propagation(Graph.from_interactions(random_interactions()), "numba")
    products = [propagation(embeddings(54, 64)) for _ in range(5)]  # all kept: each has memory of its own
    assert {product.data_ptr() % 64 for product in products} == {0}


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("dim", [1, 3, 16, 64, 130])
def test_product_and_gradient_equal_the_dense_ones(backend, device, dim):
    interactions = random_interactions()
    A = dense_adjacency(interactions).float().to(device)
    propagation = Propagation(Graph.from_interactions(interactions), backend)
    E = embeddings(len(A), dim, device=device)
    product = propagation(E)
    torch.testing.assert_close(product, A @ E)
    assert torch.equal(
        product[interactions.num_users - 2 : interactions.num_users], torch.zeros(2, dim, device=device)
    )
    G = embeddings(len(A), dim, seed=2, device=device).detach()
    product.backward(G)
    torch.testing.assert_close(E.grad, A.T @ G)


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("rows", [[], [53], [5], [21, 22, 40, 0], [50, 3, 7, 24, 25, 26, 1]])
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_rows_equal_the_rows_of_the_dense_product(backend, device, rows, dim):
    interactions = random_interactions()
    A = dense_adjacency(interactions).float().to(device)
    propagation = Propagation(Graph.from_interactions(interactions), backend)
    E = embeddings(len(A), dim, device=device)
    rows = torch.tensor(rows, dtype=torch.long, device=device)
    product = propagation.rows(E, rows)
    torch.testing.assert_close(product, A[rows] @ E)
    G = torch.randn(len(rows), dim, generator=torch.Generator().manual_seed(3)).to(device)
    product.backward(G)
    torch.testing.assert_close(E.grad, A[rows].T @ G)


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("rows", [None, [4, 50, 22, 30, 0]])
def test_layers_and_their_gradient_equal_repeated_dense_products(backend, device, num_layers, rows):
    interactions = random_interactions()
    A = dense_adjacency(interactions).float().to(device)
    propagation = Propagation(Graph.from_interactions(interactions), backend)
    E = embeddings(len(A), 8, device=device)
    rows = None if rows is None else torch.tensor(rows, device=device)
    layers = propagation.layers(E, num_layers, rows)
    powers = [E]
    for _ in range(num_layers):
        powers.append(A @ powers[-1])
    expected = powers if rows is None else [power[rows] for power in powers]
    assert len(layers) == num_layers + 1
    for layer, power in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer, power)

    def gradient(layers):
        generator = torch.Generator().manual_seed(4)
        loss = sum(
            (layer * torch.randn(layer.shape, generator=generator).to(device)).sum() for layer in layers
        )
        return torch.autograd.grad(loss, E, retain_graph=True)[0]

    torch.testing.assert_close(gradient(layers), gradient(expected))
    # a loss of one layer only leaves the others without a gradient
    for layer in range(num_layers + 1):
        torch.testing.assert_close(gradient(layers[layer : layer + 1]), gradient(expected[layer : layer + 1]))


@pytest.mark.parametrize(("backend", "device"), PLACES)
def test_gradcheck_in_float64(backend, device):
    propagation = Propagation(Graph.from_interactions(random_interactions(0, 6, 8, 20)), backend)
    E, rows = embeddings(14, 2, torch.float64, device=device), torch.tensor([3, 7, 9, 1], device=device)
    assert torch.autograd.gradcheck(lambda E: propagation.layers(E, 3, rows), E)
    assert torch.autograd.gradcheck(propagation, E)


@pytest.mark.parametrize(("backend", "device"), PLACES)
def test_a_graph_without_edges_propagates_zeros(backend, device):
    propagation = Propagation(Graph.from_interactions(Interactions.from_pairs([], [], 3, 2)), backend)
    E = embeddings(5, 4, device=device)
    propagation(E).sum().backward()
    assert torch.equal(propagation(E), torch.zeros(5, 4, device=device))
    assert torch.equal(E.grad, torch.zeros(5, 4, device=device))


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("pairs", "dim"), [(0, 8), (900, 24), (60_000, 24), (60_000, 300)])
def test_the_product_on_a_gpu_equals_the_dense_one_with_the_same_bits_every_time(pairs, dim, dtype):
    from l2q.kernels.sparse_cuda import Product

    interactions = random_interactions(2, 4000, 50, pairs)  # items have up to 4000 users, 16 bags
    A, graph = dense_adjacency(interactions).to("cuda", dtype), Graph.from_interactions(interactions)
    product = Product(graph.indptr, graph.indices, graph.values, torch.device("cuda"), dtype)
    X = embeddings(len(A), dim, dtype, device="cuda").detach()
    Y = product(X)
    torch.testing.assert_close(Y, A @ X, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(product(X), Y) for _ in range(5))


def test_non_contiguous_embeddings_give_the_same_product():
    propagation = Propagation(Graph.from_interactions(random_interactions()))
    E = embeddings(54, 6).detach()
    assert torch.equal(propagation(E.T.contiguous().T), propagation(E))


def test_the_number_of_threads_changes_no_bit():
    propagation = Propagation(Graph.from_interactions(random_interactions(5, 300, 400, 9000)))
    E, rows, threads = embeddings(700, 32).detach(), torch.arange(0, 700, 3), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append((propagation(E), propagation.rows(E, rows), propagation.hop_from(rows, E[rows])))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_a_column_has_the_same_bits_however_many_others_there_are():
    """Blocks of several widths sum them."""
    propagation = Propagation(Graph.from_interactions(random_interactions()))
    E = torch.randn(54, 93, generator=torch.Generator().manual_seed(0))
    whole = propagation(E)
    for dim in (1, 3, 4, 7, 8, 13, 16, 31, 64):
        assert torch.equal(propagation(E[:, :dim]), whole[:, :dim])


def test_repeated_rows_are_refused():
    propagation = Propagation(Graph.from_interactions(random_interactions()))
    with pytest.raises(ValueError, match="distinct"):
        propagation.rows(embeddings(54, 2), torch.tensor([3, 3]))


def test_a_module_with_a_propagation_copies_and_saves_without_it():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.propagation = Propagation(Graph.from_interactions(random_interactions()), "torch")

    model = Model()
    E = embeddings(54, 2).detach()
    before = model.propagation(E)
    assert torch.equal(copy.deepcopy(model).propagation(E), before)
    assert not model.state_dict()
