"""What a search leaves beside its jobs: ``search.json``, ``history.png`` and ``importance.png``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2q.files import replaced_file
from l2q.sweeps.search_space import Range

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from l2q.sweeps.search import Search

STATES = {"COMPLETE": "done", "PRUNED": "pruned"}  # of Optuna; any other is open


def state(trial: FrozenTrial) -> str:
    """ "done", "pruned" or "open": running, broken off or failed."""
    return STATES.get(trial.state.name, "open")


def best(study: Study) -> FrozenTrial | None:
    """The best of the trials that are done, the first of equals; None where none is."""
    done = [trial for trial in study.trials if state(trial) == "done"]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return min(done, key=lambda trial: (sign * trial.value, trial.number), default=None)  # type: ignore[operator]


def importance(study: Study) -> dict[str, float]:
    """How far each option sets the best trials apart from the others that are done, shares of 1 (PED-ANOVA, Watanabe et
    al. 2023, arXiv 2304.10255). The best are a tenth, at least five. Empty with fewer than ten trials, which tell
    nothing."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    done = sum(state(trial) == "done" for trial in study.trials)
    if done < 10:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental in Optuna
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / done))
        return get_param_importances(study, evaluator=evaluator)


def write(study: Study, search: Search, folder: Path, pictures: bool = False) -> None:
    """``search.json``: settings, trials, the best with its command, importance; with ``pictures`` these too."""
    first, shares = best(study), importance(study)
    content = {
        "search": asdict(search),
        "best": None if first is None else _told(first, search),
        "importance": shares,
        "trials": [_told(trial, search) for trial in study.trials],
    }
    with replaced_file(folder / "search.json") as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if not pictures:
        return
    draw_history(study, search, folder / "history.png")
    if shares:
        draw_importance(study, search, shares, folder / "importance.png")


def _told(trial: FrozenTrial, search: Search) -> dict[str, Any]:
    ranges = search.ranges()
    measured = {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())}
    return {
        "number": trial.number,
        "state": state(trial),
        "value": trial.value,
        "values": {name: ranges[name].value(drawn) for name, drawn in trial.params.items()},
        "validations": measured,
        **{key: trial.user_attrs.get(key) for key in ("folder", "command")},
    }


def conclusion(study: Study, search: Search, folder: Path) -> str:
    """For the terminal: how many trials, which is the best, and the command that gives its value again."""
    count = {name: sum(state(trial) == name for trial in study.trials) for name in ("done", "pruned", "open")}
    told = ", ".join(f"{number} {name}" for name, number in count.items() if number)
    lines = [f"{len(study.trials)} trials: {told}; search.json and pictures in {folder}"]
    first = best(study)
    if first is not None:
        lines += [
            f"best: trial {first.number}, {search.metric} {first.value:.4f}",
            first.user_attrs["command"],
        ]
    return "\n".join(lines)


def draw_history(study: Study, search: Search, path: Path) -> None:
    """The value of every trial, and the best so far."""
    figure, (axes,) = _figure(1, width=7)
    done = [trial for trial in study.trials if state(trial) == "done"]
    pruned = [trial for trial in study.trials if state(trial) == "pruned" and trial.value is not None]
    better = max if study.direction.name == "MAXIMIZE" else min
    record: list[float] = []
    for trial in done:
        record.append(better([*record[-1:], float(trial.value or 0)]))
    if done:
        ends = [*(trial.number for trial in done), len(study.trials) - 1]
        axes.step(ends, [*record, record[-1]], where="post", color="tab:green", label="best so far", zorder=1)
        axes.scatter(
            [t.number for t in done], [t.value for t in done], color="tab:blue", s=24, label="done", zorder=2
        )
    if pruned:
        axes.scatter(
            [trial.number for trial in pruned],
            [trial.value for trial in pruned],
            facecolors="none",
            edgecolors="gray",
            s=24,
            label="pruned, its last validation",
        )
    axes.set(xlabel="trial", ylabel=search.metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if done or pruned:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)


def draw_importance(study: Study, search: Search, shares: dict[str, float], path: Path) -> None:
    """What part each option has in the best trials, and how the metric went with the values of each."""
    from matplotlib.ticker import LogLocator, NullFormatter

    names = sorted(shares, key=shares.__getitem__, reverse=True)[:5]  # as many as are read
    figure, (bars, *panels) = _figure(1 + len(names), width=3.2)
    bars.barh(names[::-1], [shares[name] for name in names[::-1]], height=0.6, color="tab:blue")
    bars.set(xlabel="importance, share of 1", xlim=(0, 1))
    done = [trial for trial in study.trials if state(trial) == "done"]
    ranges = search.ranges()
    for axes, name in zip(panels, names, strict=True):
        entry = ranges[name]
        at: Sequence[Any] = [trial.params[name] for trial in done]
        if not isinstance(entry, Range):  # choices stand in their order
            axes.set_xticks(range(len(entry.words)), entry.words)
            if sum(map(len, entry.words)) > 24:
                axes.tick_params("x", rotation=30)
            axes.set_xlim(-0.5, len(entry.words) - 0.5)
            at = [entry.words.index(word) for word in at]
        elif entry.log:
            axes.set_xscale("log")
            narrow = entry.high < 100 * entry.low
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.scatter(at, [trial.value for trial in done], color="tab:blue", s=18)
        if isinstance(entry, Range):  # all of it, tried or not
            (low, high), margin = (entry.low, entry.high), 0.05 * (entry.high - entry.low)
            axes.set_xlim(*((low / 1.1, high * 1.1) if entry.log else (low - margin, high + margin)))
        axes.set(xlabel=name, ylabel=search.metric if axes is panels[0] else "")
    figure.savefig(path, dpi=120)


def _figure(number: int, width: float) -> tuple[Any, list[Any]]:
    """A figure with so many panels, each ``width`` inches wide."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * number, 3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, number, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure, panels
