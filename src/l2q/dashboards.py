"""W&B workspaces as code: which panels a project has, and of which keys that runs log.

The specification is plain data here (``sections``), so that it can be read, held to what a run logged (``unlogged``)
and built (``build``) apart from each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from l2q.errors import L2QError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "L2Q"
SWEPT = (
    "model.name",
    "seed",
    "model.embedding_dim",
    "model.num_layers",
    "learning_rate",
    "objective.l2",
    "annealing.curve",
)
"""Options that the panels of a sweep show, unless others are named."""


@dataclass(frozen=True)
class Panel:
    """A ``kind`` of plot of ``keys``, each with the place where W&B keeps it: ``history:val/recall_20`` of
    every epoch, ``summary:test/recall_20`` of the run's end, ``config:model.name``. ``x`` is what they are drawn
    over, where the kind has such an axis."""

    kind: Literal["lines", "areas", "bars", "points", "parallel", "importance"]
    title: str
    keys: tuple[str, ...]
    x: str | None = None

    @property
    def all_keys(self) -> tuple[str, ...]:
        return self.keys if self.x is None else (self.x, *self.keys)


def sections(k: int = 20, swept: Sequence[str] = SWEPT) -> dict[str, list[Panel]]:
    """The panels of a workspace by section; metrics at the cut-off ``k``, a sweep by its options ``swept``."""
    val, test, packed = (f"{part}/recall_{k}" for part in ("val", "test", "test/packed"))
    return {
        "Quality over epochs": [
            _lines(f"Validation Recall@{k}", val),
            _lines(f"Validation NDCG@{k}", f"val/ndcg_{k}"),
            _lines("Training loss", "train/loss"),
            _lines("Learning rate", "learning_rate"),
        ],
        "Annealing against quality": [
            _lines(f"Validation Recall@{k} over strength", val, x="anneal/strength"),
            _lines("Strength", "anneal/strength"),
        ],
        "Recovery": [
            _bars(f"Recall@{k}: packed files, float teacher", packed, f"test/teacher/recall_{k}"),
            _bars(f"NDCG@{k}: float products, packed files", f"test/ndcg_{k}", f"test/packed/ndcg_{k}"),
        ],
        "Compression": [
            _points(f"Recall@{k} against bytes of an item", packed, "item_bytes"),
            _bars("Times smaller than float32 rows", "compression", "compression_d64"),
            _bars("Bytes of the index", "index_bytes"),
        ],
        "Codes": [
            _lines("Bits that flipped since the last validation", "codes/flip_ratio"),
            _lines("Balance of the bits", "codes/bit_balance"),
            _lines("Spread of the item scales", "codes/scale_spread"),
        ],
        "Beyond accuracy": [
            _bars(
                f"Recall@{k} by popularity of items", *_keys(k, "head_recall", "mid_recall", "tail_recall")
            ),
            _bars(f"Coverage@{k}, Gini@{k}", *_keys(k, "coverage", "gini")),
            _points(f"Recall@{k} against novelty@{k} in bits", test, f"test/novelty_{k}"),
            _points(f"Recall@{k} against popularity lift@{k}", test, f"test/popularity_lift_{k}"),
        ],
        "Time": [
            Panel("areas", "Seconds of an epoch", tuple(f"history:time/{part}" for part in PARTS), EPOCH),
            _bars("Seconds of a run: fitting, all", "fit_seconds", "total_seconds"),
        ],
        "Sweep": [
            Panel(
                "parallel",
                "What was swept, and what came out",
                (*(f"config:{option}" for option in swept), f"summary:{val}.max", f"summary:{packed}"),
            ),
            Panel("importance", f"What moves validation Recall@{k}", (f"summary:{val}.max",)),
            Panel("importance", f"What moves test Recall@{k}", (f"summary:{packed}",)),
        ],
    }


PARTS = ("sample", "propagate", "loss", "optimizer", "evaluate", "other")  # of an epoch's time
EPOCH = "history:epoch"


def _lines(title: str, *names: str, x: str = "epoch") -> Panel:
    return Panel("lines", title, tuple(f"history:{name}" for name in names), f"history:{x}")


def _bars(title: str, *names: str) -> Panel:
    return Panel("bars", title, tuple(f"summary:{name}" for name in names))


def _points(title: str, name: str, x: str) -> Panel:
    return Panel("points", title, (f"summary:{name}",), f"summary:{x}")


def _keys(k: int, *names: str) -> list[str]:
    return [f"test/{name}_{k}" for name in names]


def unlogged(panels: dict[str, list[Panel]], logged: set[str]) -> dict[str, list[str]]:
    """The keys of each panel that are not among those that runs ``logged``, by the panel's title."""
    found = {
        panel.title: [key for key in panel.all_keys if key not in logged]
        for section in panels.values()
        for panel in section
    }
    return {title: keys for title, keys in found.items() if keys}


def logged_keys(folder: str | Path) -> set[str]:
    """What a run told W&B, by the files in its ``folder``: keys as panels have them.

    Raises L2QError where it has no such files.
    """
    from l2q.tracking.wandb_files import records, values

    files = sorted(Path(folder).glob("wandb/*run-*/run-*.wandb"))
    if not files:
        raise L2QError(f"{folder} has no file of a W&B run; give a run's folder, trained with logger=wandb")
    found: set[str] = set()
    for path in files:
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                found |= {f"history:{key}" for key in values(record.history.item)}
            elif kind == "summary":
                found |= set(_flat("summary", values(record.summary.update)))
            elif kind in ("run", "config"):
                config = record.run.config if kind == "run" else record.config
                found |= set(_flat("config", values(config.update)))
    return found


def _flat(place: str, told: dict[str, Any]) -> Iterator[str]:
    """Nested keys joined by dots."""
    for key, value in told.items():
        if isinstance(value, dict):
            yield from (f"{place}:{key}.{inner.partition(':')[2]}" for inner in _flat(place, value))
        else:
            yield f"{place}:{key}"


def build(entity: str, project: str, panels: dict[str, list[Panel]], name: str = NAME) -> Workspace:
    """The workspace of ``wandb-workspaces``, which holds every panel to its own types. Nothing is sent.

    build("me", "l2q", sections()).save()  # sent, with an account

    Raises L2QError where that package is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise L2QError(f"dashboard: {error}; install wandb-workspaces") from error
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(name=title, panels=[_built(panel) for panel in of_section], is_open=True)
            for title, of_section in panels.items()
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=50),
    )


def _built(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    def there(key: str) -> Any:
        place, _, name = key.partition(":")
        kinds = {"history": wr.Metric, "summary": wr.SummaryMetric, "config": wr.Config}
        return kinds[place](name)

    def named(key: str) -> str:
        return key.partition(":")[2]

    if panel.kind in ("lines", "areas"):
        style: Any = "stacked-area" if panel.kind == "areas" else "line"
        x = None if panel.x is None else named(panel.x)
        return wr.LinePlot(
            title=panel.title, x=x, y=[named(key) for key in panel.keys], plot_type=style, title_x=x
        )
    if panel.kind == "bars":
        return wr.BarPlot(title=panel.title, metrics=[named(key) for key in panel.keys])
    if panel.kind == "points":
        assert panel.x is not None
        return wr.ScatterPlot(title=panel.title, x=there(panel.x), y=there(panel.keys[0]))
    if panel.kind == "parallel":
        columns = [
            wr.ParallelCoordinatesPlotColumn(metric=there(key), display_name=named(key)) for key in panel.keys
        ]
        return wr.ParallelCoordinatesPlot(title=panel.title, columns=columns)
    return wr.ParameterImportancePlot(with_respect_to=named(panel.keys[0]))


def send(workspace: Workspace) -> str:
    """Saves it as a new view of its project; returns its address. Raises L2QError without an account, and where W&B
    refuses it."""
    import wandb

    try:
        if not wandb.login(prompt=False):
            raise L2QError(
                "dashboard: W&B has no key here; run `wandb login`, or look at the panels with --dry-run"
            )
        return str(workspace.save().url)
    except (wandb.errors.Error, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise L2QError(f"dashboard: W&B does not take it ({reason}); --dry-run shows it") from error
