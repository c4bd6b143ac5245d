"""Which runs stand together: a block for each data set and protocol, in it a row for the seeds of a command."""

from __future__ import annotations

import functools
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from l2q.report.measures import NDCG, RECALL, USUAL, Measure, part_of

Run = dict[str, Any]
NO_FIGURE = {
    "callbacks",
    "hydra",
    "keep",
    "launcher",
    "logger",
    "notes",
    "print_config",
    "search",
    "sweep",
    "tags",
}
"""Groups and options that change no figure: runs with others of these are seeds of one row."""
MODELS = ("popularity", "spectral", "lightgcn", "teacher", "last_layer", "l2q", "l2q_anl", "l2q_plus")
FLOAT = ("popularity", "spectral", "lightgcn", "teacher")
# LightGCN (d 64) on these splits as published: He et al., SIGIR 2020, and later papers
PUBLISHED = {
    "gowalla": {RECALL: 0.1830, NDCG: 0.1554},
    "yelp2018": {RECALL: 0.0649, NDCG: 0.0530},
}
PUBLISHED_BITS = 32 * 64


def bits_of(run: Run) -> int:
    """Bits of an item's row, scale included."""
    return round(8 * run["item_bytes"])


def words_of(run: Run) -> tuple[str, ...]:
    """The options of a run's command on which its figures depend; ``key={a:1,b:2}`` is key.a=1 and key.b=2."""
    return _words(run.get("command", ""))


@functools.cache
def _words(command: str) -> tuple[str, ...]:
    words: list[str] = []
    for word in shlex.split(command)[2:]:
        key, _, value = word.partition("={")
        if re.split(r"[=./@]", key.lstrip("+~"))[0] in NO_FIGURE:
            continue
        entries = value.removesuffix("}").split(",") if value else []
        words += [f"{key}.{entry.replace(':', '=', 1)}" for entry in entries] or [word]
    return tuple(words)


def settings_of(run: Run) -> frozenset[str]:
    """What a run's command says beside the seed and what the table says anyway."""
    return _settings(words_of(run))


@functools.cache
def _settings(words: tuple[str, ...]) -> frozenset[str]:
    known = "seed=", "model=", "dataset=", "protocol="
    return frozenset(word for word in words if not word.startswith(known))


def models_of(runs: Sequence[Run]) -> list[str]:
    """The models in the order of the table; what it does not know comes last."""
    return [*MODELS, *sorted({run["model"] for run in runs}.difference(MODELS))]


@dataclass(frozen=True)
class Row:
    """The runs of one command with several seeds. ``name``: the model and what its command says, in backticks."""

    name: str
    model: str
    bits: int
    runs: list[Run]
    part: str
    measures: tuple[Measure, ...]

    def values(self, measure: Measure) -> list[float]:
        """One for each seed that has it."""
        found = (measure.of_run(run, self.part) for run in self.runs)
        return [value for value in found if value is not None]

    @cached_property
    def means(self) -> tuple[float, ...]:
        """Over seeds, for each of ``measures``."""
        return tuple(statistics.mean(self.values(measure)) for measure in self.measures)

    def shares(self, reference: Sequence[float]) -> str:
        """What part of a reference's figures this row has."""
        pairs = zip(self.means, reference, strict=True)
        return " / ".join(f"{own / other:.1%}" if other else "–" for own, other in pairs)


@dataclass(frozen=True)
class Block:
    """Runs of one data set and protocol, all shown on test or all on validation."""

    title: str
    runs: list[Run]
    measures: tuple[Measure, ...]

    @property
    def dataset(self) -> str:
        return self.runs[0]["dataset"]

    @cached_property
    def part(self) -> str:
        return part_of(self.runs[0], self.measures)

    @cached_property
    def rows(self) -> list[Row]:
        """In the order of the table, float teachers of fitted codes among them."""
        here = self.runs + self._teachers()
        found: dict[tuple[str, int, frozenset[str]], list[Run]] = {}
        for name, run in zip(_names(here, self.part), here, strict=True):
            found.setdefault((name, bits_of(run), settings_of(run)), []).append(run)
        place = {model: number for number, model in enumerate(models_of(self.runs))}
        ordered = sorted(found.items(), key=lambda row: (place[row[1][0]["model"]], row[0][:2]))
        return [
            Row(name, runs[0]["model"], bits, runs, self.part, self.measures)
            for (name, bits, _), runs in ordered
        ]

    @cached_property
    def lightgcn(self) -> tuple[tuple[float, ...], int]:
        """The reference of the table and its bits per item: our best LightGCN, or the published one where ours is
        missing or below 97 % of its first figure; nothing where there is neither."""
        rows = [row for row in self.rows if row.model == "lightgcn"]
        best = max(rows, key=lambda row: row.means, default=None)
        published = self.published
        if published and (best is None or best.means[0] < 0.97 * published[0]):
            return published, PUBLISHED_BITS
        return ((), 0) if best is None else (best.means, best.bits)

    @property
    def published(self) -> tuple[float, ...]:
        """What was published for the block's split; runs that did not train on all of train are not compared."""
        known = PUBLISHED.get(self.dataset, {})
        ours = self.runs[0]["protocol"] == "final" and self.part == "test"
        if not ours or not all(measure in known for measure in self.measures):
            return ()
        return tuple(known[measure] for measure in self.measures)

    @property
    def best_float(self) -> tuple[float, ...]:
        return max((row.means for row in self.rows if row.model in FLOAT), default=())

    def _teachers(self) -> list[Run]:
        """The float teachers of runs of ``l2q_plus`` as rows of their own; they are no indexes and have no bits."""
        if self.part != "test":
            return []
        found = {}
        for run in self.runs:
            values = {measure: run.get(f"test/teacher/{measure.key}") for measure in self.measures}
            if all(value is not None for value in values.values()):
                same = run["seed"], *(f"{value:.4f}" for value in values.values())
                shown = {f"test/packed/{measure.key}": value for measure, value in values.items()}
                found[same] = run | {"model": "teacher", "item_bytes": 0} | shown
        teachers = list(found.values())
        if len({run["seed"] for run in teachers}) == len(teachers):
            # codes of several commands share a seed's teacher, so that it is no matter of their options
            teachers = [run | {"command": ""} for run in teachers]
        return teachers


def blocks(runs: Sequence[Run], measures: Sequence[Measure] = USUAL) -> list[Block]:
    """Runs that stand in one table, by title. Tables of events that share a file's name are kept apart by the
    fingerprint of train."""
    found: dict[str, list[Run]] = {}
    known: dict[str, set[str]] = {}
    for run in runs:
        known.setdefault(run["dataset"], set()).update({run["train"]} if "train" in run else ())
    for run in runs:
        part = "" if part_of(run, measures) == "test" else ", validation"
        which = f" (train {run['train']})" if "train" in run and len(known[run["dataset"]]) > 1 else ""
        title = f"**{run['dataset']}**{which}, protocol `{run['protocol']}`{_split(run)}{part}"
        found.setdefault(title, []).append(run)
    return [Block(title, here, tuple(measures)) for title, here in sorted(found.items())]


def _split(run: Run) -> str:
    """How the validation part of a run was drawn; of files from before it stood there, by the command."""
    if run["protocol"] != "holdout":
        return ""
    return f" ({run.get('split', 'cluster' if 'protocol.split=cluster' in run.get('command', '') else 'random')} split)"


def _names(runs: Sequence[Run], part: str) -> list[str]:
    """The model, and what its command says: on test, what not all commands of this model with as many bits say, an
    experiment that not all of its commands name, and the options that all of them give, each with its own value; on
    validation, what most of the table's commands do not."""
    common: dict[tuple[str, int | None], frozenset[str]] = {}
    swept: dict[str, frozenset[str]] = {}
    for run in runs:
        model, given = run["model"], settings_of(run)
        for alike in ((model, None), (model, bits_of(run))):
            common[alike] = common.get(alike, given) & given
        keys = frozenset(word.partition("=")[0] for word in given)
        swept[model] = swept.get(model, keys) & keys
    counts = Counter(word for run in runs for word in set(words_of(run)))
    elsewhere = "seed=", "model=", "model.embedding_dim=", "model.bits="  # columns of their own
    names = []
    for run in runs:
        if part == "test":
            model = run["model"]
            own = settings_of(run) - common[model, bits_of(run)]
            own |= {
                word
                for word in settings_of(run) - common[model, None]
                if word.startswith("experiment=")
                or (word.partition("=")[0] in swept[model] and not word.startswith(elsewhere))
            }
            words = [word for word in words_of(run) if word in own]
        else:
            words = [word for word in words_of(run) if 2 * counts[word] <= len(runs)]
            words = [word for word in words if not word.startswith(elsewhere)]
        options = [word.partition("=") for word in words if not _of_checkpoint(word)]
        said = [f"`{key.split('.')[-1]}={value}`" for key, _, value in options]
        names.append(" ".join([f"`{run['model']}`", *said, *_checkpoint(run)]))
    return names


def measured(run: Run) -> bool:
    """Whether nothing was trained (``fit=false``): a checkpoint of another run was measured."""
    return "fit=false" in [word.lower() for word in words_of(run)]


def _of_checkpoint(word: str) -> bool:
    return word.lower() == "fit=false" or word.startswith("ckpt_path=")


def _checkpoint(run: Run) -> list[str]:
    """What such a run is called: by the checkpoint, and the folder of the run that wrote it."""
    if not measured(run):
        return []
    path = next((word.partition("=")[2] for word in words_of(run) if word.startswith("ckpt_path=")), "")
    parts = [part for part in path.strip("'").split("/") if part not in ("", "checkpoints")]
    return [f"(checkpoint `{'/'.join(parts[-2:])}`, measured again)"]
