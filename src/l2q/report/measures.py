"""What a report shows of runs: a metric at a cut-off, or any other figure of ``metrics.json``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from l2q.errors import L2QError

LABELS = {"recall": "Recall", "ndcg": "NDCG", "precision": "Precision", "hit_rate": "Hit rate", "mrr": "MRR"}
LESS_IS_BETTER = ("gini", "loss", "_seconds", "_bytes", "time/", "popularity_lift")


@dataclass(frozen=True)
class Measure:
    """``key``: of a metric ``recall_20``, which stands behind ``test/packed/`` or ``val/``; of any other figure its
    whole key in ``metrics.json``, such as ``item_bytes`` or ``test/teacher/recall_20``."""

    key: str

    @classmethod
    def of(cls, name: str) -> Measure:
        """``Measure.of("recall@20")``; ``recall_20``, ``Recall@20`` and whole keys are taken too.

        Raises L2QError for a name that cannot be a key.
        """
        key = re.sub(r"[\s-]", "_", name.strip().lower().replace("@", "_"))
        if not re.fullmatch(r"[a-z0-9_./]+", key):
            raise L2QError(
                f"--metric {name}: give a metric such as recall@20 or ndcg@10, or a key of metrics.json"
            )
        return cls(key)

    @property
    def label(self) -> str:
        """As people read it: Recall@20."""
        path, _, last = self.key.rpartition("/")
        name, _, k = last.rpartition("_")
        if not (name and k.isdigit()):
            return self.key
        return " ".join(
            filter(None, (path.replace("/", " "), f"{LABELS.get(name, name.replace('_', ' '))}@{k}"))
        )

    @property
    def less_is_better(self) -> bool:
        return any(part in self.key for part in LESS_IS_BETTER)

    def key_in(self, run: dict[str, Any], part: str) -> str:
        """The key of this measure in a run that is shown on ``part``, which is ``test`` or ``val``: of the exported
        files, where it was measured on them."""
        keys = [f"test/packed/{self.key}", f"test/{self.key}"] if part == "test" else [f"val/{self.key}"]
        return next((key for key in (*keys, self.key) if key in run), keys[0])

    def of_run(self, run: dict[str, Any], part: str) -> float | None:
        """Its value; None where the run has none."""
        value = run.get(self.key_in(run, part))
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def text(self, value: float) -> str:
        """Metrics with four decimals, large figures in thousands."""
        return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"


RECALL, NDCG = Measure("recall_20"), Measure("ndcg_20")
USUAL = (RECALL, NDCG)


def part_of(run: dict[str, Any], measures: Sequence[Measure] = USUAL) -> str:
    """The part of the data on which a run is shown: test, where it read test, else val."""
    measured = [measure for measure in measures if measure.key not in run]
    if not measured:  # sizes and times belong to neither
        return "test" if any(key.startswith("test/") for key in run) else "val"
    return "test" if measured[0].key_in(run, "test") in run else "val"


def known(run: dict[str, Any]) -> list[str]:
    """The metrics that a run has on test or validation, in the words of ``--metric``."""
    found = (re.fullmatch(r"(?:test|test/packed|val)/(\w+)_(\d+)", key) for key in run)
    return list(dict.fromkeys(f"{match[1]}@{match[2]}" for match in found if match))
