"""Quantizers: values, codes and gradients, by hand."""

import math

import pytest
import torch
from presets import quantizer as quantizer_of

from l2q.errors import L2QError
from l2q.models.quantizers import RELAXATIONS, SURROGATES, Identity, row_scale, sign

# Row scales 1, 0.5 and 0, exact in float16.
ROWS = [[0.5, -1.5, 0.0, 2.0], [-0.5, 0.25, 1.0, -0.25], [0.0, 0.0, 0.0, 0.0]]
SIGNS = [[1, -1, 1, 1], [-1, 1, 1, -1], [1, 1, 1, 1]]
SCALES = [[1.0], [0.5], [0.0]]


def rows(requires_grad=False):
    return torch.tensor(ROWS, requires_grad=requires_grad)


def quantizer(strength=1.0, **options):
    built = quantizer_of(**options)
    built.strength = strength
    return built


def gradient(built, x, generator=None):
    x = x.clone().requires_grad_()
    built(x, generator).sum().backward()
    return x.grad


def test_sign_of_zero_is_plus_one():
    assert sign(torch.tensor([-2.0, -0.0, 0.0, 1e-30, -1e-30])).tolist() == [-1, 1, 1, 1, -1]
    assert sign(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_row_scale_is_the_mean_magnitude_rounded_to_its_dtype_and_constant():
    x = rows(requires_grad=True)
    assert row_scale(x).tolist() == SCALES
    assert not row_scale(x).requires_grad
    third = row_scale(torch.tensor([[0.25, 0.25, 0.5]]), torch.float16)
    assert third.dtype == torch.float32
    assert third.item() == 1365 / 4096  # float16 has 11 bits: 1/3 = 1365.33 / 4096


def test_row_scale_is_the_least_squares_scale():
    x = torch.tensor([[0.3, -1.1, 0.7, 2.0]])
    q = sign(x)
    assert row_scale(x).item() == pytest.approx((x * q).sum().item() / (q * q).sum().item())


@pytest.mark.parametrize("scales", ["none", "row"])
@pytest.mark.parametrize("estimator", SURROGATES)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_the_ends_of_every_relaxation_are_exact(relaxation, estimator, scales):
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    options = {"relaxation": relaxation, "estimator": estimator, "scales": scales, "scale_dtype": "float16"}
    assert torch.equal(quantizer(0.0, **options)(x), x)

    hard = quantizer(1.0, **options)
    codes, scale = hard.encode(x)
    assert torch.equal(hard(x), codes.float() * (1 if scale is None else scale))
    assert torch.equal(hard(x) > 0, x >= 0)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_codes_are_hard_whatever_the_strength(strength):
    codes, scales = quantizer(strength, scales="row").encode(rows())
    assert codes.dtype == torch.int8
    assert codes.tolist() == SIGNS
    assert scales.tolist() == SCALES
    assert quantizer(strength).encode(rows())[1] is None


def test_mixture_by_hand():
    value = quantizer(0.25, relaxation="mixture", scales="row")(rows())
    # 0.75 x + 0.25 a sign(x)
    assert value[0].tolist() == [0.625, -1.375, 0.25, 1.75]
    assert value[1].tolist() == [-0.5, 0.3125, 0.875, -0.3125]
    assert value[2].tolist() == [0, 0, 0, 0]
    assert quantizer(0.25, relaxation="mixture")(rows())[2].tolist() == [0.25] * 4


@pytest.mark.parametrize("scales", ["none", "row"])
def test_tanh_relaxation_equals_its_formula_and_true_derivative(scales):
    x = rows()[:2]
    a = row_scale(x) if scales == "row" else torch.ones(2, 1)
    beta = 3.0  # t / (1 - t) at t = 3/4
    reference = x.clone().requires_grad_()
    expected = a * torch.tanh(beta * reference / a) / math.tanh(beta)
    expected.sum().backward()
    built = quantizer(0.75, relaxation="tanh", scales=scales, estimator="bireal")
    torch.testing.assert_close(built(x), expected)
    torch.testing.assert_close(gradient(built, x), reference.grad)


def test_tanh_relaxation_runs_from_the_floats_to_the_codes():
    x = rows()
    near = quantizer(1e-4, relaxation="tanh", scales="row")
    torch.testing.assert_close(near(x), x, atol=1e-6, rtol=1e-6)
    far = quantizer(0.999, relaxation="tanh", scales="row")
    torch.testing.assert_close(far(x)[1], quantizer(1.0, scales="row")(x)[1])


def test_guidance_makes_whole_rows_hard_with_the_frequency_of_the_strength():
    x = torch.full((20_000, 3), 0.25)
    built = quantizer(0.3, relaxation="guidance")
    value = built(x, torch.Generator().manual_seed(0))
    assert set(value.unique().tolist()) == {0.25, 1.0}
    assert torch.equal(value.amin(1), value.amax(1))
    hard = (value[:, 0] == 1).float().mean().item()
    assert abs(hard - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 20_000)
    assert torch.equal(value, built(x, torch.Generator().manual_seed(0)))
    assert not torch.equal(value, built(x, torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="generator"):
        built(x)


INVERSE_ROOT_PI = 0.5641895835477563
POINTS = [-2.0, -1.0, -0.5, 0.0, 0.5, 3.0]
DERIVATIVES = {
    "ste": [1, 1, 1, 1, 1, 1],
    "clipped": [0, 1, 1, 1, 1, 0],
    "bireal": [0, 0, 1, 2, 1, 0],
    "gaussian": [
        INVERSE_ROOT_PI * math.exp(-4),
        INVERSE_ROOT_PI * math.exp(-1),
        INVERSE_ROOT_PI * math.exp(-0.25),
        INVERSE_ROOT_PI,
        INVERSE_ROOT_PI * math.exp(-0.25),
        INVERSE_ROOT_PI * math.exp(-9),
    ],
    # clip 1: w = pi / 2, 4 w / pi = 2, tones 1, 3, .. ; sums outside [-1, 1] are cut
    "fourier_2": [-1, 0, 1, 1, 1, 0],
    "fourier_4": [-1, 0, 0, 1, 0, 0],
    "fourier_8": [-1, 0, 0, 1, 0, 0],
    "fourier_16": [-1, 0, 0, 1, 0, 0],
    "tanh": [0.0706508249, 0.4199743416, 0.7864477330, 1, 0.7864477330, 0.0098660372],
}


@pytest.mark.parametrize("estimator", SURROGATES)
def test_surrogate_gradients_by_value(estimator):
    got = gradient(quantizer(estimator=estimator), torch.tensor([POINTS], dtype=torch.float64))
    assert got[0].tolist() == pytest.approx(DERIVATIVES[estimator], abs=1e-9)


@pytest.mark.parametrize("terms", [2, 4, 8, 16])
def test_fourier_is_the_derivative_of_the_square_waves_series(terms):
    # clip 20 keeps every sum inside [-1, 1], so that nothing is cut
    z = torch.tensor([[-31.0, -7.0, 0.3, 2.0, 11.0, 25.0]], dtype=torch.float64, requires_grad=True)
    w = math.pi / 40
    wave = sum(4 / (math.pi * i) * torch.sin(i * w * z) for i in range(1, terms, 2))
    wave.sum().backward()
    torch.testing.assert_close(SURROGATES[f"fourier_{terms}"](z.detach(), 20.0), z.grad)


def test_gaussian_keeps_its_floor():
    assert gradient(quantizer(estimator="gaussian"), torch.tensor([[9.0]])).item() == pytest.approx(1e-8)


def test_clip_and_normalize():
    x = rows()
    wide = gradient(quantizer(estimator="clipped", clip=1.5), x)
    assert wide.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    # |x / a|: row 0 as it is, row 1 doubled, row 2 zero
    scaled = quantizer(estimator="clipped", scales="row", normalize=True, clip=1.5)
    assert gradient(scaled, x).tolist() == [[1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1]]
    bireal = quantizer(estimator="bireal", scales="row", normalize=True)
    assert gradient(bireal, x).tolist() == [[1, 0, 2, 0], [0, 1, 0, 1], [2, 2, 2, 2]]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_normalized_rows_without_scales_have_no_length(relaxation, strength):
    """Values are those of x / a, and gradients have its 1 / a, so that long rows and short ones turn alike."""
    x = rows()[:2]
    a = torch.tensor(SCALES[:2])
    options = {"relaxation": relaxation, "estimator": "clipped"}
    plain = quantizer(strength, **options, clip=1.5)
    built = quantizer(strength, **options, clip=1.5, normalize=True)
    drawn = [torch.Generator().manual_seed(0) for _ in range(4)]
    torch.testing.assert_close(built(x, drawn[0]), plain(x / a, drawn[1]))
    torch.testing.assert_close(gradient(built, x, drawn[2]), gradient(plain, x / a, drawn[3]) / a)


def test_the_scale_multiplies_values_and_not_gradients():
    upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]])
    x = rows(requires_grad=True)
    value = quantizer(estimator="clipped", scales="row", normalize=True, clip=1.5)(x)
    assert value.tolist() == (torch.tensor(SIGNS) * torch.tensor(SCALES)).tolist()
    value.backward(upstream)
    assert x.grad.tolist() == [[1, 2, 3, 0], [5, 6, 0, 8], [9, 10, 11, 12]]


def test_the_surrogate_acts_on_the_hard_part():
    x = torch.tensor([[0.5, 2.0]])
    for estimator, expected in (("ste", [1, 1]), ("clipped", [1, 0.75]), ("bireal", [1, 0.75])):
        mixture = quantizer(0.25, relaxation="mixture", estimator=estimator)
        assert gradient(mixture, x)[0].tolist() == expected
    many = x.expand(1000, 2)
    for estimator in ("clipped", "bireal"):
        guided = quantizer(0.5, relaxation="guidance", estimator=estimator)
        hard = guided(many, torch.Generator().manual_seed(0))[:, 1] == 1
        grad = gradient(guided, many, torch.Generator().manual_seed(0))
        assert 400 < hard.sum() < 600
        assert torch.equal(grad, torch.stack((torch.ones(1000), (~hard).float()), 1))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("estimator", SURROGATES)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("scales", ["none", "row"])
def test_rows_of_zeros_stay_zero_and_finite(scales, relaxation, estimator, normalize, strength):
    options = {"relaxation": relaxation, "estimator": estimator, "normalize": normalize, "scales": scales}
    built = quantizer(strength, scale_dtype="float16", **options)
    x = torch.tensor([[0.0, -0.0, 0.0], [1e-9, 0.0, -1e-9]])  # the second scale is zero in float16 only
    value = built(x, torch.Generator().manual_seed(0))
    if scales == "row" or (strength < 1 and relaxation == "tanh"):
        assert value[0].tolist() == [0, 0, 0]
    assert value.isfinite().all()
    assert gradient(built, x, torch.Generator().manual_seed(0)).isfinite().all()


def test_only_what_the_backward_needs_is_kept():
    x = rows(requires_grad=True)
    assert quantizer(estimator="ste")(x).grad_fn.saved_tensors == (None,)
    (kept,) = quantizer(estimator="clipped")(x).grad_fn.saved_tensors
    assert kept.dtype == torch.bool


def test_a_checkpoint_holds_nothing_of_a_quantizer_which_starts_hard():
    assert not quantizer(0.375).state_dict()
    assert list(quantizer_of().parameters()) == []
    assert quantizer_of().strength == 1


def test_identity_is_the_float_model():
    x = rows()
    assert torch.equal(Identity()(x), x)
    values, scales = Identity().encode(x.double())
    assert values.dtype == torch.float32
    assert torch.equal(values, x)
    assert scales is None
    assert not Identity().state_dict()


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("estimator", "stee", f"one of {', '.join(SURROGATES)}"),
        ("scales", "rows", "one of none, row"),
        ("scale_dtype", "int8", "one of float16, float32 or null"),
        ("relaxation", "soft", "one of tanh, mixture, guidance"),
        ("clip", 0.0, "a number above 0"),
    ],
)
def test_an_unknown_option_is_one_clear_line(option, value, rule):
    with pytest.raises(L2QError, match=f"^model.quantizer.{option}={value} must be {rule}$"):
        quantizer_of(**{option: value})
