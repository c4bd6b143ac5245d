"""Declared options: types and ranges, groups within groups, names, and the one line that says what is wrong."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Le

from l2q.errors import L2QError
from l2q.options import Count, NotNegative, OneOf, Positive, Share, Whole, checked, options

SHAPES = {"round": 1, "square": 2}  # a registry


@options("tea.cup")
class Cup:
    """What tea is drunk from."""

    size: Count
    weight: NotNegative = 0.5


@options("tea")
class Tea:
    shape: Annotated[str, OneOf(SHAPES)]
    kind: Literal["black", "green"]
    cup: Cup | None = None
    steeped: Positive = 3.0
    refills: Whole = 0
    milk: Share | None = None
    hot: bool = True
    pieces: list[Count] | None = None
    sugar: Annotated[int, Ge(1), Le(4)] | Literal["honey"] | None = None
    more: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.milk and self.kind == "green":
            raise L2QError(f"tea.milk={self.milk} needs tea.kind=black")


class Pot:
    @checked("pot")
    def __init__(self, shape: Annotated[str, OneOf(SHAPES)], *, cups: Count, cup: Cup | None = None):
        self.shape, self.cups, self.cup = shape, cups, cup


def tea(**changes: Any) -> Tea:
    return Tea(**{"shape": "round", "kind": "black"} | changes)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"shape": "flat"}, "one of round, square"),
        ({"shape": 3}, "one of round, square"),
        ({"kind": "red"}, "one of black, green"),
        ({"kind": None}, "one of black, green"),
        ({"cup": 3}, "a group of options or null"),
        ({"steeped": 0.0}, "a number above 0"),
        ({"steeped": math.inf}, "a number above 0"),
        ({"steeped": math.nan}, "a number above 0"),
        ({"steeped": "3"}, "a number above 0"),
        ({"steeped": True}, "a number above 0"),
        ({"steeped": None}, "a number above 0"),
        ({"refills": -1}, "a whole number of at least 0"),
        ({"refills": 1.0}, "a whole number of at least 0"),
        ({"refills": "1"}, "a whole number of at least 0"),
        ({"refills": True}, "a whole number of at least 0"),
        ({"milk": 0.0}, "a number above 0 and below 1 or null"),
        ({"milk": 1.0}, "a number above 0 and below 1 or null"),
        ({"hot": 1}, "true or false"),
        ({"hot": "yes"}, "true or false"),
        ({"pieces": 3}, "a list, each a whole number of at least 1 or null"),
        ({"pieces": [3, 0]}, "a list, each a whole number of at least 1 or null"),
        ({"sugar": 0}, "a whole number of at least 1 and at most 4 or honey or null"),
        ({"sugar": 5}, "a whole number of at least 1 and at most 4 or honey or null"),
        ({"sugar": "salt"}, "a whole number of at least 1 and at most 4 or honey or null"),
        ({"more": 3}, "a group of options or null"),
    ],
)
def test_a_value_out_of_range_is_one_line_with_its_rule(options, rule):
    ((name, value),) = options.items()
    with pytest.raises(L2QError) as caught:
        tea(**options)
    assert str(caught.value) == f"tea.{name}={value} must be {rule}"


@pytest.mark.parametrize(
    "options",
    [
        {"shape": "square"},
        {"steeped": 4},  # a whole number is a number
        {"steeped": 1e-300},
        {"refills": 0},
        {"milk": 0.999},
        {"milk": None},
        {"pieces": []},
        {"pieces": [1, 2]},
        {"sugar": 4},
        {"sugar": "honey"},
        {"more": {"lemon": 1}},
        {"cup": Cup(2)},
    ],
)
def test_values_within_their_ranges_are_kept_as_they_are(options):
    ((name, value),) = options.items()
    assert getattr(tea(**options), name) == value


def test_a_number_of_numpy_is_a_number():
    assert tea(steeped=np.float64(2.5)).steeped == 2.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tea(steep=3), "tea.steep: there is no such option; did you mean steeped?"),
        (lambda: tea(steeped=0.0, steep=3), "tea.steep: there is no such option; did you mean steeped?"),
        (
            lambda: Cup(1, xyz=3),
            "tea.cup.xyz: there is no such option; there are size, weight",
        ),
        (lambda: Tea(kind="black"), "tea.shape is not given; it must be one of round, square"),
        (lambda: Cup(), "tea.cup.size is not given; it must be a whole number of at least 1"),
        (lambda: Cup(1, 2.0, 3), "tea.cup: too many values by position; there are size, weight"),
        (lambda: tea(milk=0.5, kind="green"), "tea.milk=0.5 needs tea.kind=black"),
    ],
)
def test_names_and_checks_of_a_class(make, message):
    with pytest.raises(L2QError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("given", ["by name", "by position"])
def test_a_group_within_a_group_is_a_mapping_or_an_object(given):
    def make(cup: Any) -> Tea:
        return Tea("round", "black", cup) if given == "by position" else tea(cup=cup)

    assert make({"size": 2}) == make(Cup(2)) == tea(cup=Cup(2, 0.5))
    assert make({"size": 2, "weight": 1}).cup.weight == 1
    assert make(None).cup is None
    for cup, message in (
        ({"size": 0}, "tea.cup.size=0 must be a whole number of at least 1"),
        ({"sise": 1}, "tea.cup.sise: there is no such option; did you mean size?"),
        ({}, "tea.cup.size is not given; it must be a whole number of at least 1"),
    ):
        with pytest.raises(L2QError) as caught:
            make(cup)
        assert str(caught.value) == message


def test_a_value_by_position_is_checked_and_named():
    assert Cup(3, 1.0) == Cup(size=3, weight=1.0)
    for arguments, message in (
        ((0,), "tea.cup.size=0 must be a whole number of at least 1"),
        ((1, -1.0), "tea.cup.weight=-1.0 must be a number of at least 0"),
    ):
        with pytest.raises(L2QError) as caught:
            Cup(*arguments)
        assert str(caught.value) == message


def test_it_is_a_frozen_dataclass_whose_copies_are_checked():
    cup = Cup(2)
    assert dataclasses.asdict(cup) == {"size": 2, "weight": 0.5}
    assert dataclasses.replace(cup, size=3) == Cup(3)
    assert (hash(cup), repr(cup)) == (hash(Cup(2)), "Cup(size=2, weight=0.5)")
    assert (Cup.__name__, Cup.__doc__) == ("Cup", "What tea is drunk from.")
    with pytest.raises(dataclasses.FrozenInstanceError):
        cup.size = 3
    with pytest.raises(L2QError, match=r"^tea\.cup\.size=0 must be a whole number of at least 1$"):
        dataclasses.replace(cup, size=0)
    with pytest.raises(L2QError, match=r"^tea\.cup\.sizes: there is no such option; did you mean size\?$"):
        dataclasses.replace(cup, sizes=0)


def test_a_registry_may_grow(monkeypatch):
    with pytest.raises(L2QError, match=r"^tea\.shape=oval must be one of round, square$"):
        tea(shape="oval")
    monkeypatch.setitem(SHAPES, "oval", 3)
    assert tea(shape="oval").shape == "oval"
    assert Pot("oval", cups=1).shape == "oval"
    with pytest.raises(L2QError, match=r"^pot\.shape=flat must be one of round, square, oval$"):
        Pot("flat", cups=1)


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (("flat",), {"cups": 1}, "pot.shape=flat must be one of round, square"),
        ((), {"shape": "flat", "cups": 1}, "pot.shape=flat must be one of round, square"),
        (("round",), {"cups": 0}, "pot.cups=0 must be a whole number of at least 1"),
        (("round",), {"cups": 1.5}, "pot.cups=1.5 must be a whole number of at least 1"),
        (("round",), {}, "pot.cups is not given; it must be a whole number of at least 1"),
        (("round",), {"cup": 1, "cups": 1}, "pot.cup=1 must be a group of options or null"),
        (("round",), {"cups": 1, "cup": {"size": 0}}, "tea.cup.size=0 must be a whole number of at least 1"),
        (("round",), {"cpus": 1}, "pot.cpus: there is no such option; did you mean cups?"),
        (("round",), {"x": 1, "cups": 1}, "pot.x: there is no such option; there are shape, cups, cup"),
    ],
)
def test_the_arguments_of_a_constructor_are_checked_alike(arguments, named, message):
    with pytest.raises(L2QError) as caught:
        Pot(*arguments, **named)
    assert str(caught.value) == message


def test_a_constructor_takes_mappings_for_groups_and_keeps_its_signature():
    pot = Pot("round", cups=2, cup={"size": 3})
    assert (pot.shape, pot.cups, pot.cup) == ("round", 2, Cup(3))
    with pytest.raises(L2QError) as caught:
        Pot("round", 2, cups=3)
    assert str(caught.value) == "pot: too many values by position; there are shape, cups, cup"
