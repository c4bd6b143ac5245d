"""Results table from stored metrics.json files: ``python -m l2q report outputs/results``."""

from __future__ import annotations

import json
import shlex
import statistics
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from l2q.errors import L2QError

MODELS = ("popularity", "spectral", "lightgcn", "teacher", "last_layer", "l2q", "l2q_anl", "l2q_plus")
FLOAT = ("popularity", "spectral", "lightgcn", "teacher")
# Recall@20 and NDCG@20 of LightGCN (d 64) on these splits as published: He et al., SIGIR 2020, and later papers
PUBLISHED = {"gowalla": (0.1830, 0.1554), "yelp2018": (0.0649, 0.0530)}


def read(folder: str | Path) -> list[dict[str, Any]]:
    """Every ``metrics.json`` below ``folder``; where there is none, as in outputs/results, every JSON file.

    A file that cannot stand in the table is left out with a warning, and so is a run whose command and seed a
    later file has too: it would count twice. Raises L2QError where no file is left.
    """
    paths = sorted(Path(folder).rglob("metrics.json")) or sorted(Path(folder).rglob("*.json"))
    if not paths:
        raise L2QError(f"{folder} holds no metrics.json; name a folder of runs, such as outputs/results")
    found: dict[tuple[Any, ...], tuple[Path, dict[str, Any]]] = {}
    for path in paths:
        row: tuple[Any, ...] = ()
        try:
            run = json.loads(path.read_text("utf-8"))
            why = _lacks(run)
            if not why:
                row = *(run[key] for key in ("dataset", "protocol", "model", "seed")), _part(run), _bits(run)
                row = *row, _settings(run)
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
        except (ValueError, OverflowError) as error:
            why = f"is no metrics file of a run ({error})"
        if why:
            warnings.warn(f"{path} {why}; it is left out", stacklevel=2)
            continue
        if row in found:
            earlier = found[row][0]
            warnings.warn(f"{earlier} has the command and seed of {path}; it is left out", stacklevel=2)
        found[row] = path, run
    if not found:
        raise L2QError(f"{folder} holds no metrics.json of a run with Recall@20; name a folder of runs")
    return [run for _, run in found.values()]


def _lacks(run: Any) -> str:
    """What keeps a file's content out of the table; nothing where it can be used."""
    if not isinstance(run, dict):
        return "is no metrics file of a run"
    kinds: dict[str, Any] = dict.fromkeys(("model", "dataset", "protocol"), str)
    kinds |= {"seed": int, "epochs": int, "item_bytes": int | float, "fit_seconds": int | float}
    wrong = [key for key, kind in kinds.items() if not isinstance(run.get(key), kind)]
    if not isinstance(run.get("command", ""), str):
        wrong.append("command")
    if wrong:
        return f"is no metrics file of a run (no usable {', '.join(wrong)})"
    measured = [f"{_part(run)}/teacher"] if f"{_part(run)}/teacher/recall_20" in run else []
    measured.append("test/packed" if _part(run) == "test" else "val")
    keys = [f"{part}/{key}_20" for part in measured for key in ("recall", "ndcg")]
    if not all(isinstance(run.get(key), int | float) for key in keys):
        return "has no Recall@20 and NDCG@20 of test or validation (see eval.ks, test and protocol)"
    return ""


Rows = dict[tuple[str, int, frozenset[str]], list[dict[str, Any]]]


def overview(runs: list[dict[str, Any]]) -> str:
    """One line per dataset: what part of LightGCN's Recall@20 and NDCG@20 on test the best row of every 1-bit model
    has, with bits per item. Empty where fewer than two datasets have a LightGCN to be compared with."""
    tables = [(here, _rows(here), *_lightgcn(here)) for _, here in _blocks(runs) if _part(here[0]) == "test"]
    tables = [table for table in tables if table[2]]
    if len(tables) < 2:
        return ""
    codes = [model for model in _models(runs) if model not in FLOAT]
    codes = [model for model in codes if any(run["model"] == model for run in runs)]
    lines = [
        "| Recall@20 / NDCG@20 | `lightgcn` | " + " | ".join(f"`{model}`" for model in codes) + " |",
        "|---|" + "---:|" * (1 + len(codes)),
    ]
    for here, rows, reference, bits in tables:
        cells = ["{:.4f} / {:.4f}, {:,} bits".format(*reference, bits)]
        for model in codes:
            groups = [group for group in rows.values() if group[0]["model"] == model]
            best = max(groups, key=_means, default=None)
            cells.append(f"{_shares(best, reference)}, {_bits(best[0]):,} bits" if best else "")
        lines.append(f"| {here[0]['dataset']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(runs: list[dict[str, Any]]) -> str:
    """One table per dataset and protocol: mean +- standard deviation over seeds of Recall@20 and NDCG@20, what
    part of the best LightGCN row's that is and of the best float row's (by Recall@20), bits per item row, training
    time. A row holds the seeds of one command. Figures are those of the exported files on test; of runs that left
    test unread, those on their validation part. ``teacher`` is the float teacher that codes of ``l2q_plus`` were
    fitted to. Where our LightGCN is missing or below 97 % of the ``PUBLISHED`` Recall@20, parts are of the
    published figures."""
    blocks = []
    for title, here in _blocks(runs):
        rows = _rows(here)
        floats = [_means(group) for group in rows.values() if group[0]["model"] in FLOAT]
        lightgcn, bits = _lightgcn(here)
        if lightgcn and lightgcn == _published(here):
            title += "; of LightGCN as published, {:.4f} / {:.4f} with {:,} bits".format(*lightgcn, bits)
        references = [lightgcn, max(floats, default=())]
        lines = [
            title,
            "",
            "| model | bits per item | Recall@20 | NDCG@20 | of LightGCN | of the best float | seeds | epochs | fit |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        place = {model: number for number, model in enumerate(_models(here))}
        for (name, bits, _), group in sorted(
            rows.items(), key=lambda row: (place[row[1][0]["model"]], row[0][:2])
        ):
            found = {key: [_value(run, key) for run in group] for key in ("recall", "ndcg")}
            shares = (_shares(group, reference) if reference else "" for reference in references)
            epochs = sorted({run["epochs"] for run in group})
            seconds = statistics.mean(run["fit_seconds"] + run.get("start_seconds", 0) for run in group)
            trained = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
            size, took = f"{bits:,}", f"{seconds:.0f} s"
            if not bits:  # a teacher has no size and no time of its own
                size = trained = took = ""
            lines.append(
                f"| {name} | {size} | {spread(found['recall'])} | {spread(found['ndcg'])} | "
                f"{' | '.join(shares)} | {len(group)} | {trained} | {took} |"
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def figure(runs: list[dict[str, Any]], path: str | Path) -> None:
    """Quality against bits as PNG: a panel per table, a line per model, the float references as levels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = _blocks(runs)
    drawing = Figure(figsize=(4.6 * len(blocks), 3.4), layout="constrained")
    FigureCanvasAgg(drawing)
    for axes, (title, here) in zip(drawing.subplots(1, len(blocks), squeeze=False)[0], blocks, strict=True):
        for number, model in enumerate(_models(here)):
            points: dict[float, list[float]] = {}
            for run in here:
                if run["model"] == model:
                    points.setdefault(8 * run["item_bytes"], []).append(_value(run, "recall"))
            level = {bits: statistics.mean(values) for bits, values in sorted(points.items())}
            if model == "lightgcn" and level:
                axes.axhline(max(level.values()), color="gray", linestyle="--", label="lightgcn, float32")
            elif model not in ("popularity", "spectral") and level:
                axes.plot(
                    level.keys(), level.values(), marker="o", color=f"C{number - len(FLOAT)}", label=model
                )
        teachers = [run[key] for run in here if (key := f"{_part(run)}/teacher/recall_20") in run]
        if teachers:
            axes.axhline(statistics.mean(teachers), color="gray", linestyle=":", label="teacher, float32")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(
            xlabel="bits per item, scale included",
            ylabel="Recall@20",
            title=title.translate({ord("*"): None, ord("`"): None}),
        )
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    try:
        drawing.savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # a ValueError names the formats that there are
        raise L2QError(f"--figure {path} cannot be written: {getattr(error, 'strerror', error)}") from error


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there is more than one."""
    text = f"{statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.4f}"


def _shares(group: list[dict[str, Any]], reference: tuple[float, ...]) -> str:
    """What part of a reference's Recall@20 and NDCG@20 a row has."""
    pairs = zip(_means(group), reference, strict=True)
    return " / ".join(f"{own / other:.1%}" if other else "–" for own, other in pairs)


def _part(run: dict[str, Any]) -> str:
    return "test" if "test/packed/recall_20" in run else "val"


def _value(run: dict[str, Any], key: str) -> float:
    return run[f"test/packed/{key}_20"] if _part(run) == "test" else run[f"val/{key}_20"]


def _means(group: list[dict[str, Any]]) -> tuple[float, ...]:
    """Mean Recall@20 and NDCG@20."""
    return tuple(statistics.mean(_value(run, key) for run in group) for key in ("recall", "ndcg"))


def _bits(run: dict[str, Any]) -> int:
    return round(8 * run["item_bytes"])


def _models(runs: list[dict[str, Any]]) -> list[str]:
    """The models in the order of the table; what it does not know comes last."""
    return [*MODELS, *sorted({run["model"] for run in runs}.difference(MODELS))]


def _teachers(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The float teachers of runs of ``l2q_plus`` as rows of their own; they are no indexes and have no bits."""
    found = {}
    for run in runs:
        if "test/teacher/recall_20" in run:
            values = {f"test/packed/{key}_20": run[f"test/teacher/{key}_20"] for key in ("recall", "ndcg")}
            same = run["seed"], *(f"{value:.4f}" for value in values.values())
            found[same] = run | {"model": "teacher", "item_bytes": 0} | values
    teachers = list(found.values())
    if len({run["seed"] for run in teachers}) == len(teachers):
        # codes of several commands share a seed's teacher, so that it is no matter of their options
        teachers = [run | {"command": ""} for run in teachers]
    return teachers


def _blocks(runs: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Runs that stand in one table: of one dataset and protocol, on test or on validation. Tables of events that
    share a file's name are kept apart by the fingerprint of train."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    known: dict[str, set[str]] = {}
    for run in runs:
        known.setdefault(run["dataset"], set()).update({run["train"]} if "train" in run else ())
    for run in runs:
        part = "" if _part(run) == "test" else ", validation"
        which = f" (train {run['train']})" if "train" in run and len(known[run["dataset"]]) > 1 else ""
        title = f"**{run['dataset']}**{which}, protocol `{run['protocol']}`{_split(run)}{part}"
        blocks.setdefault(title, []).append(run)
    return sorted(blocks.items())


def _rows(here: list[dict[str, Any]]) -> Rows:
    """The rows of a table, teachers included: by name, bits and settings, the runs of every seed."""
    rows: Rows = {}
    here = here + _teachers(here)
    for run in here:
        rows.setdefault((_name(run, here), _bits(run), _settings(run)), []).append(run)
    return rows


def _published(here: list[dict[str, Any]]) -> tuple[float, ...]:
    """What was published for a table's split; runs that did not train on all of train are not compared with it."""
    ours = here[0]["protocol"] == "final" and _part(here[0]) == "test"
    return PUBLISHED.get(here[0]["dataset"], ()) if ours else ()


def _lightgcn(here: list[dict[str, Any]]) -> tuple[tuple[float, ...], int]:
    """The reference of a table and its bits per item: our best LightGCN, or the published one where ours is missing
    or below 97 % of its Recall@20; nothing where there is neither."""
    rows = [group for group in _rows(here).values() if group[0]["model"] == "lightgcn"]
    best = max(rows, key=_means, default=None)
    published = _published(here)
    if published and (not best or _means(best)[0] < 0.97 * published[0]):
        return published, 32 * 64
    return (_means(best), _bits(best[0])) if best else ((), 0)


def _split(run: dict[str, Any]) -> str:
    """How the validation part of a run was drawn; of files from before it stood there, by the command."""
    if run["protocol"] != "holdout":
        return ""
    return f" ({run.get('split', 'cluster' if 'protocol.split=cluster' in run.get('command', '') else 'random')} split)"


def _words(run: dict[str, Any]) -> list[str]:
    """The options of a run's command; ``key={a:1,b:2}`` is key.a=1 and key.b=2."""
    words = []
    for word in shlex.split(run.get("command", ""))[2:]:
        key, _, value = word.partition("={")
        entries = value.removesuffix("}").split(",") if value else []
        words += [f"{key}.{entry.replace(':', '=', 1)}" for entry in entries] or [word]
    return words


def _settings(run: dict[str, Any]) -> frozenset[str]:
    """What a run's command says beside the seed and what the table says anyway."""
    known = "seed=", "model=", "dataset=", "protocol="
    return frozenset(word for word in _words(run) if not word.startswith(known))


def _name(run: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """The model, and what its command says: on test, what not all commands of this model with as many bits say;
    on validation, what most of the table's commands do not."""
    name = f"`{run['model']}`"
    if _part(run) == "test":
        alike = [other for other in runs if (other["model"], _bits(other)) == (run["model"], _bits(run))]
        own = _settings(run) - frozenset.intersection(*map(_settings, alike))
        words = [word for word in _words(run) if word in own]
    else:
        counts = Counter(word for other in runs for word in set(_words(other)))
        words = [word for word in _words(run) if 2 * counts[word] <= len(runs)]
        words = [
            word
            for word in words
            if not word.startswith(("seed=", "model=", "model.embedding_dim=", "model.bits="))
        ]
    options = [word.partition("=") for word in words]
    return " ".join([name, *(f"`{key.split('.')[-1]}={value}`" for key, _, value in options)])
