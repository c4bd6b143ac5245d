"""Annealing: every option of the conf group at five literal points of progress."""

from pathlib import Path

import pytest
import torch
from presets import annealing as option
from presets import quantizer as quantizer_of

from l2q.errors import L2QError
from l2q.models.annealing import CURVES

CONF = Path(__file__).parents[1] / "conf" / "annealing"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))
PROGRESS = [0, 0.25, 0.5, 0.75, 1]
# curve's strength at PROGRESS, relaxation
EXPECTED = {
    "none": ([1, 1, 1, 1, 1], "tanh"),
    "linear": ([0, 0.25, 0.5, 0.75, 1], "tanh"),
    "cosine": ([0, 0.1464466094, 0.5, 0.8535533906, 1], "tanh"),
    "geometric": ([0, 0, 0.7845565310, 0.9535841117, 1], "tanh"),  # 1 - 100^(-1/3), 1 - 100^(-2/3)
    "hashnet": ([0, 0.4472135955, 0.7071067812, 0.8366600265, 1], "tanh"),  # roots of 2/10, 5/10, 7/10
    "mixture": ([0, 0.25, 0.5, 0.75, 1], "mixture"),
    "guidance": ([0, 0.25, 0.5, 0.75, 1], "guidance"),
    "two_phase": ([0, 0, 1, 1, 1], "tanh"),
}


def test_every_option_has_its_line_here():
    assert sorted(EXPECTED) == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_strength_at_five_points(name):
    strengths, relaxation = EXPECTED[name]
    annealing = option(name)
    assert annealing.name == name
    assert annealing.relaxation == relaxation
    assert annealing.end == (None if name == "none" else 1)
    assert [annealing.strength(p) for p in PROGRESS] == pytest.approx(strengths, abs=1e-9)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_curve_rises_and_ends_at_exactly_one(name):
    annealing = option(name)
    strengths = [annealing.strength(i / 200) for i in range(201)]
    assert strengths == sorted(strengths)
    assert strengths[0] >= 0
    assert strengths[-1] == 1
    assert annealing.strength(1.7) == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_outputs_are_the_floats_at_strength_zero_and_the_codes_at_the_end(name):
    annealing = option(name)
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(3))
    quantizer = quantizer_of(estimator="clipped", scales="row", relaxation=annealing.relaxation)
    codes, scales = quantizer.encode(x)
    for progress, expected in ((0, codes * scales if name == "none" else x), (1, codes * scales)):
        quantizer.strength = annealing.strength(progress)
        assert torch.equal(quantizer(x), expected)


def test_the_end_stretches_the_curve():
    assert [option("linear", end=0.6).strength(p) for p in (0, 0.5, 1)] == [0, 0.3, 0.6]
    assert [option("linear", end=2.0).strength(p) for p in (0.25, 0.5, 1)] == [0.5, 1, 1]
    assert [option("linear", end=end).finished(0.5) for end in (1.9, 2.0)] == [False, True]
    assert option("none").finished(0)


def test_parameters_move_their_curves():
    assert option("geometric", hold=0.5).strength(0.5) == 0
    assert option("geometric", hold=0.0, minimum=0.0625).strength(0.5) == 0.75
    assert option("hashnet", stages=4).strength(0.49) == 0.5
    assert [option("two_phase", switch=0.8).strength(p) for p in (0.79, 0.8)] == [0, 1]
    assert option("two_phase", switch=1.0).strength(0.999) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("curve", "quadratic"),
        ("relaxation", "soft"),
        ("end", 0),
        ("hold", 1.0),
        ("minimum", 0.0),
        ("stages", 0),
        ("switch", 1.5),
    ],
)
def test_a_bad_value_is_one_clear_line(name, value):
    with pytest.raises(L2QError, match=rf"^annealing\.{name}={value} must be [^\n]+$"):
        option("linear", **{name: value})


@pytest.mark.parametrize(
    ("curve", "parameter"), [(curve, name) for curve, (_, names) in CURVES.items() for name in names]
)
def test_a_curve_asks_for_its_parameters(curve, parameter):
    given = {"hold": 0.25, "minimum": 0.01, "stages": 10, "switch": 0.5, parameter: None}
    with pytest.raises(
        L2QError, match=rf"^annealing\.{parameter} is not given; annealing\.curve={curve} needs it$"
    ):
        option("linear", curve=curve, **given)
