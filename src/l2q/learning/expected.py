"""How long a fit will take and how much memory, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from l2q import settings
from l2q.files import amount
from l2q.progress import span


class Cost(NamedTuple):
    """What something takes: a ``start``, and more for every thousand ``rows``, users and items, and for every million
    train ``pairs``."""

    start: float
    rows: float
    pairs: float

    def of(self, rows: int, pairs: int) -> float:
        return self.start + self.rows * rows / 1e3 + self.pairs * pairs / 1e6


class Model(NamedTuple):
    """Seconds of one core for a fit, or of two for an epoch of a trained model, MiB of memory at most where they were
    measured, and what they come from."""

    seconds: Cost
    memory: Cost | None
    how: str


# To be filled again when a model gets faster: benchmarks/fitting.py on several sets, drawn ones for the memory, and
# least squares of relative errors give the three numbers of each Cost.
#   l2q_plus: the seven sets of docs/results/fitting.md. Four are 4 to 8 % above what this says, two 20 % below it, and
#   online_retail takes half as long again. Memory: the drawn sets and gowalla, 3,371 MiB; 16 % off at most.
#   effort=best: four sets; 1 to 12 % off, and 38 % too little for online_retail. Memory: debian, movielens_1m, gowalla.
#   l2q_anl, an epoch, from outputs/results: debian 3.2 s, gowalla 16.9 s, yelp2018 39.5 s, amazon_book 84.8 s.
MODELS = {
    "l2q_plus": Model(Cost(0.5, 1.33, 17.8), Cost(863, 32.9, 0), "seven sets, in seconds of one core"),
    "l2q_plus effort=best": Model(
        Cost(14, 6, 166), Cost(524, 39.6, 601), "four sets, in seconds of one core"
    ),
    "l2q_anl": Model(
        Cost(0, 0, 30), None, "four sets and two cores, 21 to 36 seconds an epoch and million pairs"
    ),
}
# So many times the seconds of effort=best take fits where a random part decides along with a cluster part: gowalla 646
# for 576, yelp2018 691 for 636, of seed 2 in outputs/results.
BOTH = 1.1
GOES_ON = 0.25  # of the seconds of a fit: one that starts from an index, .13 to .37 on four sets

# Of choosing what pairs weigh by, each of age and value, of so many pairs at most: Online Retail as said,
# MovieLens-100K two fifths less. It shares hardly anything between cores.
WEIGHTS, LOOKED_AT, ON_TWO = Cost(1, 0.7, 22), 500_000, 1.3


def expected(model: str, rows: int, pairs: int, weights: int = 0) -> tuple[float, float | None, str]:
    """Seconds, of a trained model those of an epoch, MiB, and where both come from. ``weights``: 1 where train has
    times that pairs may weigh by, or values, 2 where it has both.

    >>> [round(number) for number in expected("l2q_plus", 21_819, 128_776)[:2]]
    [32, 1581]
    """
    found = MODELS[model]
    memory = None if found.memory is None else found.memory.of(rows, pairs)
    seconds = found.seconds.of(rows, pairs)
    if model.startswith("l2q_plus"):
        seconds += weights * WEIGHTS.of(rows, min(pairs, LOOKED_AT))
    return seconds, memory, found.how


def of_a_fit(
    model: Mapping[str, Any],
    rows: int,
    pairs: int,
    goes_on: bool,
    threads: int,
    weights: int = 0,
    holdout: str | None = None,
) -> str | None:
    """What a fit of a model with these options will take, as a line; None where nobody measured them. Fewer bits than
    usual take less than is said. ``weights``: how many of age and value are tried; ``holdout``: that of train."""
    best = model.get("effort") == "best" and not goes_on
    name = f"{model['name']} effort=best" if best else model["name"]
    if name not in MODELS:
        return None
    usual = settings.compose(model=model["name"])["model"]
    free = {key: usual[key] for key in ("effort", "bits", "halvings", "value_power") if key in usual}
    if dict(model) | free != usual or model["bits"] > usual["bits"]:
        return None
    seconds, memory, _ = expected(name, rows, pairs)
    choice = expected(name, rows, pairs, 0 if goes_on else weights)[0] - seconds
    seconds *= (GOES_ON if goes_on else BOTH if best and holdout == "cluster" else 1) / min(threads, 2)
    seconds += choice / (ON_TWO if threads > 1 else 1)
    about = "at most about" if model["bits"] < usual["bits"] else "about"
    cores = "two free cores" if threads > 1 else "a free core"
    room = f" and {amount(memory * 2**20)} of memory" if memory else ""
    return f"expected: the fit takes {about} {span(seconds)} on {cores}{room}"
