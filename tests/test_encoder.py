"""The encoder: layers, combination, rows of a batch, hard codes, PyTorch Geometric's numbers."""

import copy

import numpy as np
import presets
import pytest
import torch
from presets import bpr, normal, softmax
from presets import quantizer as quantizer_of
from presets import recommender as recommender_of

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.models.encoder import Encoder
from l2q.models.losses import Batch
from l2q.models.quantizers import Identity
from l2q.retrieval.index import DenseIndex


@pytest.fixture
def train() -> Interactions:
    rng = np.random.default_rng(3)
    return Interactions.from_pairs(rng.integers(0, 20, 150), rng.integers(0, 15, 150), 20, 15)


def encoder_of(train: Interactions, quantizer=None, **options) -> Encoder:
    usual = {"embedding_dim": 8, "num_layers": 2, "combination": "concat", "transform": "identity"}
    return presets.encoder(train, quantizer or Identity(), normal(), **usual | options)


def dense_adjacency(train: Interactions) -> torch.Tensor:
    r = torch.from_numpy(train.to_csr().toarray())
    m, n = r.shape
    a = torch.zeros(m + n, m + n)
    a[:m, m:], a[m:, :m] = r, r.T
    scale = torch.where(a.sum(1) > 0, a.sum(1).clamp(min=1).rsqrt(), 0.0)
    return scale[:, None] * a * scale


def test_mean_and_concat_are_the_dense_layers(train):
    a = dense_adjacency(train)
    mean = encoder_of(train, combination="mean")
    e = mean.embeddings.detach()
    layers = [e, a @ e, a @ (a @ e)]
    torch.testing.assert_close(mean().detach(), sum(layers) / 3)
    mean = encoder_of(train, combination="mean", layer_weights=[1.0, 0.5, 0.25])
    torch.testing.assert_close(mean().detach(), e + 0.5 * layers[1] + 0.25 * layers[2])
    concat = encoder_of(train, layer_weights=[1.0, 0.5, 0.25])
    expected = torch.cat([layers[0], 0.5 * layers[1], 0.25 * layers[2]], dim=1)
    torch.testing.assert_close(concat().detach(), expected)
    # the score carries the weight of both sides
    np.testing.assert_allclose(concat.encode().weights, [1, 0.25, 0.0625])

    carried = encoder_of(train, layer_weights=[1.0, 0.5, 0.25], residual=0.3)
    first = layers[1] + 0.3 * e
    expected = torch.cat([e, 0.5 * first, 0.25 * (layers[2] + 0.3 * first)], dim=1)
    torch.testing.assert_close(carried().detach(), expected)
    with pytest.raises(L2QError, match=r"model\.residual=0\.3 needs model\.combination=concat"):
        encoder_of(train, combination="mean", residual=0.3)

    for mixing in (0.3, 1.0):
        mixed = encoder_of(train, layer_weights=[1.0, 0.5, 0.25], mixing=mixing)
        own = [layer + mixing * (sum(layers) - layer) for layer in layers]
        expected = torch.cat([own[0], 0.5 * own[1], 0.25 * own[2]], dim=1)
        torch.testing.assert_close(mixed().detach(), expected)
    with pytest.raises(L2QError, match=r"model\.mixing=0\.3 needs model\.combination=concat"):
        encoder_of(train, combination="mean", mixing=0.3)
    with pytest.raises(L2QError, match=r"model\.mixing=0\.3 .* needs model\.residual=0, not 0\.2"):
        encoder_of(train, residual=0.2, mixing=0.3)
    with pytest.raises(L2QError, match=r"model\.mixing=1\.5 must be a number of at least 0 and at most 1"):
        encoder_of(train, mixing=1.5)


@pytest.mark.parametrize(
    "options",
    [
        {"combination": "mean"},
        {},
        {"residual": 0.5},
        {"mixing": 0.5},
        {"mixing": 1.0, "transform": "rotation"},
    ],
)
def test_the_rows_of_a_batch_give_the_same_values_and_gradients(train, options):
    quantizer = quantizer_of(estimator="clipped", normalize=True, clip=2.5, scales="row")
    encoder = encoder_of(train, quantizer, **options)
    encoder.quantizer.strength = 0.5
    nodes = torch.tensor([0, 3, 7, 21, 30])
    target = torch.randn(len(nodes), encoder().shape[1], generator=torch.Generator().manual_seed(0))
    whole, some = encoder()[nodes], encoder(nodes)
    torch.testing.assert_close(some, whole)
    gradients = [torch.autograd.grad((v * target).sum(), encoder.embeddings)[0] for v in (whole, some)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_a_rotation_leaves_float_scores_and_changes_codes(train):
    plain, rotated = encoder_of(train), encoder_of(train, transform="rotation")
    for x, y in zip(plain.segments(), rotated.segments(), strict=True):
        torch.testing.assert_close(x @ x.T, y @ y.T)
    first, second = (t.weight for t in rotated.transforms[:2])
    assert (first - second).abs().max() > 0.1  # another one for every layer
    learned = encoder_of(train, transform="learned")
    weight = learned.transforms[1].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    for encoder, learns in ((learned, True), (rotated, False)):
        assert {p.requires_grad for p in encoder.transforms.parameters()} == {learns}


def test_itq_turns_the_start_towards_its_signs(train):
    """And by an orthogonal matrix, which leaves float scores."""
    plain, turned = (encoder_of(train, transform=name) for name in ("rotation", "itq"))
    for x, y, e in zip(plain.segments(), turned.segments(), encoder_of(train).segments(), strict=True):
        torch.testing.assert_close(y @ y.T, e @ e.T)
        errors = [(z / z.norm(dim=1, keepdim=True) - z.sign() / 8**0.5).square().sum() for z in (x, y)]
        assert errors[1] < errors[0]


@pytest.mark.parametrize("transform", ["rotation", "itq", "learned"])
def test_a_seed_fixes_the_start_and_the_rotations(train, transform):
    first, again, other = (encoder_of(train, transform=transform, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.embeddings, again.embeddings)
    assert not torch.isclose(first.embeddings, other.embeddings).any()
    for a, b, c in zip(first.transforms, again.transforms, other.transforms, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert (a.weight - c.weight).abs().max() > 0.1


def test_scales_beyond_their_type_are_named(train):
    encoder = encoder_of(train, quantizer_of(scales="row", scale_dtype="float16"))
    encoder.encode()
    with torch.no_grad():
        encoder.embeddings *= 1e8
    with pytest.raises(L2QError, match=r"range of model\.quantizer\.scale_dtype; take float32"):
        encoder.encode()


def test_annealing_leads_from_the_float_scores_to_the_exported_codes(train):
    encoder = encoder_of(train, quantizer_of(scales="row"))
    floats = encoder_of(train)
    encoder.quantizer.strength = 0.0
    assert torch.equal(encoder(), floats())
    encoder.quantizer.strength = 1.0
    values, codes = encoder().detach().numpy(), encoder.encode()
    for s in range(3):
        part = slice(8 * s, 8 * s + 8)
        np.testing.assert_array_equal(
            values[:20, part], codes.users.values[:, part] * codes.users.scales[:, s, None]
        )
        np.testing.assert_array_equal(
            values[20:, part], codes.items.values[:, part] * codes.items.scales[:, s, None]
        )


def test_evaluation_is_hard_whatever_the_strength(train):
    encoder = encoder_of(train, quantizer_of(scales="row"))
    encoder.quantizer.strength = 0.0
    soft = encoder.encode()
    encoder.quantizer.strength = 1.0
    hard = encoder.encode()
    assert soft.binary
    np.testing.assert_array_equal(soft.items.values, hard.items.values)
    np.testing.assert_array_equal(soft.items.scales, hard.items.scales)


def test_a_single_segment_needs_no_user_scale(train):
    rows = encoder_of(train, quantizer_of(scales="row", scale_dtype="float16"), combination="mean").encode()
    assert rows.users.scales is None
    assert rows.scale_dtype == "float16"
    np.testing.assert_array_equal(rows.items.scales, rows.items.scales.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("objective", [bpr(l2=0), softmax(l2=0), softmax(l2=0, num_negatives=64)])
def test_the_checkerboard_is_learned_perfectly(objective):
    """User u likes the items of its own color; one of them is held out and must be ranked first."""
    users, items = np.divmod(np.arange(20 * 20), 20)
    same = users % 2 == items % 2
    held_out = items == (users + 2) % 20
    train = Interactions.from_pairs(users[same & ~held_out], items[same & ~held_out], 20, 20)
    encoder = encoder_of(
        train, quantizer_of(estimator="clipped", normalize=True, clip=2.5, scales="row"), embedding_dim=32
    )
    adam = torch.optim.Adam(encoder.parameters(), lr=0.02)
    rng = np.random.default_rng(0)
    for step in range(60):
        encoder.quantizer.strength = (step + 1) / 60
        positives = torch.from_numpy(train.items.astype(np.int64))
        owners = torch.from_numpy(train.users.astype(np.int64))
        negatives = (owners + 1 + 2 * torch.from_numpy(rng.integers(0, 10, len(owners)))) % 20
        values = encoder()
        batch = Batch(owners, positives, negatives, torch.full((len(owners),), 1 / 20))
        loss = objective(values[:20], values[20:], batch, *encoder.embeddings.split(20))
        adam.zero_grad()
        loss.backward()
        adam.step()
    _, ranked = DenseIndex(encoder.encode()).search(np.arange(20), 1, exclude=train)
    np.testing.assert_array_equal(ranked[:, 0], (np.arange(20) + 2) % 20)


def test_the_graph_stays_out_of_checkpoints_and_copies(train):
    encoder = encoder_of(train, quantizer_of())
    assert set(encoder.state_dict()) == {"embeddings"}
    assert torch.equal(copy.deepcopy(encoder)(), encoder())


@pytest.mark.parametrize("combination", ["mean", "concat"])
def test_learned_layer_weights_start_as_the_fixed_ones(train, combination):
    fixed = encoder_of(train, combination=combination)
    learned = encoder_of(train, combination=combination, layer_weights="learned")
    torch.testing.assert_close(learned(), fixed())
    with torch.no_grad():
        learned.layer_weights.copy_(torch.tensor([1.0, -0.5, 0.25]))
    fixed = encoder_of(train, combination=combination, layer_weights=[1.0, -0.5, 0.25])
    torch.testing.assert_close(learned(), fixed())
    np.testing.assert_allclose(learned.encode().weights, fixed.encode().weights)
    learned().square().sum().backward()
    e = learned.embeddings.detach()
    a = dense_adjacency(train)
    layers = torch.stack([e, a @ e, a @ (a @ e)])
    along = layers if combination == "concat" else fixed().detach()
    weights = learned.layer_weights.detach() if combination == "concat" else torch.ones(3)
    expected = 2 * weights * (layers * along).sum((1, 2))
    torch.testing.assert_close(learned.layer_weights.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"combination": "sum"}, "model.combination=sum must be one of mean, concat"),
        ({"transform": "shear"}, "model.transform=shear must be one of identity, rotation, itq, learned"),
        ({"layer_weights": [1.0]}, "model.layer_weights has 1 values; num_layers=2 needs 3"),
        ({"layer_weights": "fixed"}, "model.layer_weights=fixed must be a list, .* or learned or null"),
        ({"embedding_dim": 0}, "model.embedding_dim=0 must be a whole number of at least 1"),
        ({"num_layers": -1}, "model.num_layers=-1 must be a whole number of at least 0"),
    ],
)
def test_unknown_options_are_named(train, options, words):
    with pytest.raises(L2QError, match=words):
        encoder_of(train, **options)


@pytest.mark.parametrize(("size", "some"), [(16, False), (5, True)])
def test_an_epoch_equals_pytorch_geometrics_lightgcn(train, size, some):
    """Same weights, same batches, same Adam: embeddings and loss stay within 1e-5 for an epoch, where all rows are
    computed and where a small batch computes ``some`` alone."""
    geometric = pytest.importorskip("torch_geometric.nn.models")
    encoder = encoder_of(train, combination="mean")
    m = train.num_users
    peer = geometric.LightGCN(m + train.num_items, 8, 2)
    start = encoder.embeddings.detach().clone()
    with torch.no_grad():
        peer.embedding.weight.copy_(start)
    pairs = np.stack([train.users, train.items + m]).astype(np.int64)
    edges = torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1))
    recommender = recommender_of(encoder, bpr(l2=0.1), 1e-2)
    recommender.log = lambda *args, **options: None
    ours, theirs = (torch.optim.Adam(module.parameters(), lr=1e-2) for module in (encoder, peer))
    rng = np.random.default_rng(0)
    for _ in range(10):
        chosen = rng.choice(len(train), size, replace=False)
        owners, positives = (torch.from_numpy(pairs[side, chosen]) for side in (0, 1))
        negatives = torch.from_numpy(rng.integers(m, m + train.num_items, size))
        values = encoder()
        loss = recommender.training_step((owners, positives - m, negatives - m), 0)
        assert (recommender._batch_nodes(owners, torch.cat([positives, negatives])) is not None) == some
        nodes = torch.cat([owners, positives, negatives])
        embeddings = peer.get_embedding(edges)
        positive, negative = (
            (embeddings[owners] * embeddings[other]).sum(1) for other in (positives, negatives)
        )
        expected = peer.recommendation_loss(
            positive, negative, node_id=nodes, lambda_reg=0.1 / 2
        )  # ours carries 1/2
        np.testing.assert_allclose(loss.item(), expected.item(), atol=1e-5)
        torch.testing.assert_close(values, embeddings, atol=1e-5, rtol=0)
        for optimizer, value in ((ours, loss), (theirs, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    torch.testing.assert_close(encoder.embeddings.detach(), peer.embedding.weight.detach(), atol=1e-5, rtol=0)
    assert (encoder.embeddings - start).abs().max() > 0.01  # they did move


@pytest.mark.parametrize(("size", "some"), [(16, False), (2, True)])
def test_a_step_takes_the_hardest_of_a_pairs_candidates(train, size, some):
    """The loss of rows alone and of all rows is the plain formula's."""
    encoder = encoder_of(train, combination="mean")
    recommender = recommender_of(encoder, bpr(l2=0.1, candidates=3), 1e-2)
    recommender.log = lambda *args, **options: None
    rng = np.random.default_rng(1)
    users, positives, negatives = (
        torch.from_numpy(rng.integers(0, high, number))
        for high, number in ((train.num_users, size), (train.num_items, size), (train.num_items, 3 * size))
    )
    items = torch.cat([positives, negatives]) + train.num_users
    assert (recommender._batch_nodes(users, items) is not None) == some
    X, Y = encoder().split([train.num_users, train.num_items])
    E_users, E_items = encoder.embeddings.split([train.num_users, train.num_items])
    scores = (X[users] * Y[negatives.view(3, size)]).sum(2)
    chosen = negatives.view(3, size)[scores.argmax(0), torch.arange(size)]
    squares = sum(e.square().sum() for e in (E_users[users], E_items[positives], E_items[chosen]))
    positive = (X[users] * Y[positives]).sum(1)
    expected = torch.nn.functional.softplus(scores.amax(0) - positive).mean() + 0.1 / 2 * squares / size
    torch.testing.assert_close(recommender.training_step((users, positives, negatives), 0), expected)


@pytest.mark.parametrize(("size", "some"), [(24, False), (4, True)])
def test_a_step_corrects_scores_by_the_popularity_of_items(train, size, some):
    """The loss of rows alone and of all rows is the plain formula's, with shares of all train pairs."""
    encoder = encoder_of(train, combination="mean")
    objective = softmax(l2=0.0, similarity="inner", temperature=0.5, correct_popularity=True)
    recommender = recommender_of(encoder, objective, 1e-2)
    recommender.log = lambda *args, **options: None
    chosen = np.random.default_rng(2).choice(len(train), size, replace=False)
    users, positives = (
        torch.from_numpy(side[chosen].astype(np.int64)) for side in (train.users, train.items)
    )
    assert (recommender._batch_nodes(users, positives + train.num_users) is not None) == some
    X, Y = encoder().split([train.num_users, train.num_items])
    shares = torch.from_numpy(np.bincount(train.items, minlength=15) / len(train)).float()
    scores = X[users] @ Y[positives].T / 0.5 - shares[positives].log()
    same = users.unsqueeze(1) == users
    others = torch.stack([torch.isin(positives, positives[row]) for row in same])  # all that the user has
    negatives = scores.masked_fill(others, -torch.inf).logsumexp(1)
    expected = torch.nn.functional.softplus(negatives - scores.diagonal()).mean()
    none = torch.empty(0, dtype=torch.long)
    torch.testing.assert_close(recommender.training_step((users, positives, none), 0), expected)


@pytest.mark.parametrize("nodes", [None, torch.tensor([1, 4, 25])])
def test_without_layers_the_gradient_is_that_of_the_embeddings(train, nodes):
    encoder = encoder_of(train, num_layers=0)
    values = encoder(nodes)
    (gradient,) = torch.autograd.grad(values.sum(), encoder.embeddings)
    expected = torch.zeros(35, 8)
    expected[slice(None) if nodes is None else nodes] = 1
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0]])
def test_items_have_the_length_of_their_popularity(train, weights, dtype):
    """Of float rows by their values, of codes by their scales; users and directions stay."""
    degrees = np.bincount(train.items, minlength=15)
    for quantizer in (Identity(), quantizer_of(scales="row", scale_dtype=dtype)):
        usual, scaled = (
            encoder_of(train, quantizer, layer_weights=weights, popularity=e).encode() for e in (None, 0.3)
        )
        tolerance = 1e-3 if dtype == "float16" else 1e-5
        weighted = [(side.factors()[1] * np.sqrt(side.weights).repeat(8)) for side in (usual, scaled)]
        lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in weighted]
        np.testing.assert_allclose(lengths[1][:, 0], degrees**0.3, rtol=tolerance)
        np.testing.assert_allclose(
            weighted[1] / lengths[1], weighted[0] / lengths[0], rtol=0.0, atol=tolerance
        )
        np.testing.assert_array_equal(scaled.users.values, usual.users.values)
        if scaled.binary:
            np.testing.assert_array_equal(scaled.items.values, usual.items.values)
            np.testing.assert_array_equal(scaled.items.scales, scaled.items.scales.astype(dtype))


def test_an_item_nobody_has_counts_as_one_that_one_user_has():
    train = Interactions.from_pairs([0, 1, 1], [0, 0, 1], num_users=2, num_items=3)
    rows = encoder_of(train, popularity=0.5, num_layers=0).encode().items.values
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [2**0.5, 1, 1], rtol=1e-5)


def test_codes_without_scales_have_no_place_for_popularity(train):
    with pytest.raises(
        L2QError, match=r"^model\.popularity=0\.3 needs scales .* model\.quantizer\.scales=row$"
    ):
        encoder_of(train, quantizer_of(scales="none"), popularity=0.3)
