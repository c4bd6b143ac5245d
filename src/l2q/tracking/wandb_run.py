"""Weights & Biases: one run, one history, whatever happens to the process, and never the reason why a run fails.

**One history over resumes.** An offline file cannot be continued: W&B opens a new one for every process. So a run that
is gone on with has several files under one id, and each epoch stands in exactly one of them. What earlier files of the
id hold is read back first (``l2q.tracking.wandb_files``) and not told again. ``wandb sync`` sends the files of an id in
the order of their start, as one run, whether the first were sent before or not. Where an offline run's id is known and
its files are gone, nobody knows what was sent: the run gets a new id and tells everything. Online, the run itself says
how far it came.

**Rows on disk.** W&B flushes its file every 15 seconds; here it does every tenth of a second. After a kill the file has
the rows of ``history.csv``.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from pytorch_lightning.loggers import Logger, WandbLogger

from l2q.options import checked
from l2q.tracking.lineage import Piece
from l2q.tracking.tracker import Tracker, reason
from l2q.tracking.wandb_files import Told, await_end, told

ID_FILE = "wandb_id.txt"
SUMMARY_KEYS = 40
"""At most so many keys has a run's summary. What is trained has the last epoch, loss and strength among them, and the
maximum and the last value of each metric that decides."""
OF_W_AND_B = 4
"""Those that W&B adds: ``_runtime``, ``_step``, ``_timestamp`` and one that it hides."""
ACCURACY = ("recall", "ndcg", "precision", "hit_rate", "mrr")
FLUSH_SECONDS = 0.1
TEARDOWN_SECONDS = ENDING_SECONDS = 10.0
SIZES = ("item_bytes", "user_bytes", "index_bytes", "compression", "compression_d64")
DURATIONS = ("fit_seconds", "total_seconds")
Method = TypeVar("Method", bound=Callable[..., None])


def harmless(method: Method) -> Method:
    """An error of W&B's does not fail the run. The first one becomes a warning. The run goes on, and goes on telling
    W&B."""

    @functools.wraps(method)
    def safe(self: WandbTracker, *arguments: Any, **named: Any) -> None:
        try:
            method(self, *arguments, **named)
        except Exception as error:
            if not self.broken:
                self.broken = True
                warnings.warn(
                    f"W&B failed ({reason(error)}); the run goes on. "
                    f"`python -m l2q wandb {self.folder}` tells it later what it lacks",
                    stacklevel=2,
                )

    return safe  # type: ignore[return-value]


class WandbTracker(Tracker):
    """The run as W&B shows it: curves over the epochs, a short summary, the index with its lineage.

    ``before``: what W&B has of it. ``log_index``: send the index's files. ``place`` is the folder of W&B's file, below
    the run's.
    """

    def __init__(self, run: Any, folder: Path, before: Told, *, log_index: bool) -> None:
        self.run, self.folder, self.log_index = run, folder, log_index
        self.epochs, self.step, self.failed_before = set(before.epochs), before.steps, before.error
        self.place = Path(run.dir).parent
        self.ks: Sequence[int] = ()
        self.decides: int | None = None
        self.rows: list[dict[str, float]] = []
        self.broken = False

    def _log_values(self, values: dict[str, Any]) -> None:
        """A row of the history, on its way to the disk at once; rows go on counting where earlier files ended."""
        self.run.log(values, step=self.step, commit=True)
        self.step += 1

    @harmless
    def start(self, config: dict[str, Any], decides: int | None = None) -> None:
        """The epoch becomes the x axis. W&B shows panels for loss, annealing, codes, times, Recall and NDCG. The other
        validation metrics are in the history, without a panel."""
        self.ks, self.decides = list(config["eval"]["ks"]), decides
        if not self.run.name:
            self.run.name = f"{config['model']['name']} {config['dataset']['name']}"
        # where the data and the checkpoint lie is nobody else's concern
        shown = dict(config) | {
            "dataset": {**config["dataset"], "dir": _last_part(config["dataset"].get("dir"))}
        }
        shown["ckpt_path"] = _last_part(config.get("ckpt_path"))
        self.run.config.update(shown, allow_val_change=True)
        define = functools.partial(self.run.define_metric, step_metric="epoch")
        self.run.define_metric(
            "epoch", hidden=True
        )  # the last one is what a summary keeps unless told otherwise
        self.run.define_metric("step", hidden=True, summary="none")
        define("learning_rate", summary="none")
        for group, summary in (("train", None), ("anneal", None), ("codes", "none"), ("time", "none")):
            define(f"{group}/*", summary=summary)
        define("val/*", hidden=True, summary="none")
        for k in sorted({*self.ks, *filter(None, [decides])}):
            for key in (f"val/recall_{k}", f"val/ndcg_{k}"):
                define(key, summary="max,last" if k == decides else "none")
        self.run.define_metric("training.*", summary="none")  # the parts of an image

    @harmless
    def use(self, piece: Piece) -> None:
        # use_artifact is refused offline, though its record can be written and `wandb sync` sends it
        self._log(piece, use_after_commit=True)

    @harmless
    def made(self, piece: Piece) -> None:
        self._log(piece, use_after_commit=False)

    def _log(self, piece: Piece, *, use_after_commit: bool) -> None:
        import wandb

        artifact = wandb.Artifact(piece.name, piece.kind, metadata=piece.metadata)
        if piece.folder is None or not self.log_index:
            artifact.add_reference(piece.reference, name=piece.kind, checksum=False)
        else:  # not copied: the files are sent from where they are
            artifact.add_dir(str(piece.folder), policy="immutable", skip_cache=True)
        with _files_in(self.folder):
            self.run._log_artifact(artifact, use_after_commit=use_after_commit)

    @harmless
    def replay(self, rows: Sequence[dict[str, float]]) -> None:
        """Those that W&B does not have."""
        self.rows = list(rows)
        for row in rows:
            self._log_row(row)

    @harmless
    def log_epoch(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        self._log_row(row)

    def _log_row(self, row: dict[str, float]) -> None:
        if (epoch := int(row["epoch"])) not in self.epochs:
            self.epochs.add(epoch)
            self._log_values(row)

    @harmless
    def log_summary(self, values: dict[str, Any], figure: Path | None = None, step: int = 0) -> None:
        """Test metrics become panels and, with sizes and seconds, the summary, beside the best and the last value of
        the metric that decides. Words become configuration below ``run``."""
        import wandb

        numbers = {key: value for key, value in values.items() if isinstance(value, Real)}
        words = {key: value for key, value in values.items() if key not in numbers}
        self.run.config.update({"run": words}, allow_val_change=True)
        # of all files of this run, not only of this one
        best = {} if self.decides is None else self._best(numbers, self.decides)
        finals = self._finals(numbers, SUMMARY_KEYS - OF_W_AND_B - 2 * len(best) - 3 * bool(self.rows))
        panels = {key: value for key, value in finals.items() if re.fullmatch(r"test/(recall|ndcg)_\d+", key)}
        if panels:
            self._log_values(panels)
        self.run.summary.update(finals | best)
        if figure is not None:
            with _files_in(self.folder):
                self._log_values({"training": wandb.Image(str(figure))})

    def _finals(self, numbers: Mapping[str, Any], most: int) -> dict[str, Any]:
        """The final values of the summary, ``most`` of them: Recall and NDCG from codes and from packed files at every
        K, sizes, seconds, what is beside accuracy, the float teacher."""
        part = "test" if any(key.startswith("test/") for key in numbers) else "val"
        accuracy = [f"{metric}_{k}" for metric in ("recall", "ndcg") for k in self.ks]
        wanted = [f"test/{source}{name}" for source in ("", "packed/") for name in accuracy]
        if part == "val" and self.decides is None:  # all that was measured
            wanted = [f"val/{name}" for name in accuracy]
        beside = [key for key in numbers if re.fullmatch(rf"test/(?!{'|'.join(ACCURACY)})[a-z_]+_\d+", key)]
        ks = sorted(self.ks, key=lambda k: (not any(key.endswith(f"_{k}") for key in beside), k))
        teacher = [f"{part}/teacher/{metric}_{k}" for k in ks for metric in ("recall", "ndcg")]
        ordered = ["epochs", *SIZES, *DURATIONS, *wanted, *beside, *teacher]
        found = [key for key in dict.fromkeys(ordered) if key in numbers]
        return {key: numbers[key] for key in found[:most]}

    def _best(self, numbers: Mapping[str, Any], k: int) -> dict[str, dict[str, float]]:
        found = {}
        for key in (f"val/recall_{k}", f"val/ndcg_{k}"):
            measured = [row[key] for row in self.rows if key in row]
            if not measured and key in numbers:
                measured = [numbers[key]]
            if measured:
                found[key] = {"max": max(measured), "last": measured[-1]}
        return found

    @harmless
    def finish(self, error: BaseException | None = None) -> None:
        code = 0
        if error is not None:
            code = getattr(error, "code", 1)  # of a signal, 128 and its number
            # a search that gives a job up says so by its code
            key, word, said = ("error", "failed", reason(error)) if code else ("pruned", "pruned", str(error))
            self.run.summary[key] = said
            notes = (self.run.notes or "").split(f"{word}: ")[0].strip()
            self.run.notes = "\n\n".join(filter(None, [notes, f"{word}: {said}"]))
        elif self.failed_before:  # and goes on well
            self.run.summary["error"] = ""
        with _files_in(self.folder):
            self.run.finish(exit_code=code if isinstance(code, int) else 1)
        await_end(self.place / f"run-{self.run.id}.wandb", ENDING_SECONDS)


class RunLogger(WandbLogger):
    """Lightning's logger of a W&B run. The tracker says everything, in whole rows, so what Lightning logs by itself is
    dropped."""

    def __init__(self, run: Any, tracker: WandbTracker) -> None:
        super().__init__(experiment=run, save_dir=str(tracker.folder))
        self.tracker = tracker

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any) -> None:  # type: ignore[override]
        pass

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        pass

    def finalize(self, status: str) -> None:
        pass


@checked("logger")
def wandb_logger(
    folder: Path,
    run_name: str,
    group: str | None = None,
    *,
    project: str,
    entity: str | None,
    tags: list[str] | None,
    notes: str | None,
    job_type: str | None,
    offline: bool | None,
    log_index: bool,
) -> Logger | None:
    """The run's W&B logger, its files in ``folder/wandb``. It never asks, never hangs, never fails a run.

    Options are those of ``conf/logger/wandb.yaml``. ``offline`` None is offline exactly where no key is configured. A
    key without a network falls back to offline too, with a warning. Where W&B cannot even write a file, there is a
    warning and no logger. WANDB_MODE=disabled is no logger. The run's id is kept in
    ``folder/checkpoints/wandb_id.txt``: a resumed run continues it, under its first name. With ``log_index`` false the
    index's files stay here, and W&B is told of it alone.

        usual = settings.preset("logger/wandb") | {"tags": ["try"]}
        connect(usual, Path("outputs/1"), "model=l2q,seed=0", "first sweep")
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    options = {"project": project, "entity": entity, "tags": tags, "notes": notes, "job_type": job_type}
    try:
        with _files_in(folder):
            run, before = _begin(folder, run_name, group, options, offline)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        with _without_variables(), _files_in(folder):
            try:
                _forget()
                run, before = _begin(folder, run_name, group, options, True)
            except Exception as again:
                warnings.warn(
                    f"W&B cannot keep this run ({reason(again)}); its folder has all of it, and "
                    f"`python -m l2q wandb {folder}` tells W&B later",
                    stacklevel=2,
                )
                return None
        warnings.warn(
            f"W&B cannot be used as asked ({reason(error)}); this run is logged offline", stacklevel=2
        )
    return RunLogger(run, WandbTracker(run, folder, before, log_index=log_index))


def _begin(
    folder: Path, name: str, group: str | None, options: Mapping[str, Any], offline: bool | None
) -> tuple[Any, Told]:
    """The run, and what W&B has of it from before."""
    import wandb

    if offline is None:
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not wandb.login(prompt=False)
    path = folder / "checkpoints" / ID_FILE
    run_id = _known_id(path)
    known = told(folder, run_id)
    if offline and not known.files:
        run_id = uuid.uuid4().hex[:8]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run_id + "\n")
    run = wandb.init(
        mode="offline" if offline else "online",
        dir=str(folder),
        name=known.name or readable(name) or None,
        group=known.group or group,
        id=run_id,
        resume="allow",
        reinit="finish_previous",
        settings=wandb.Settings(
            init_timeout=30,
            finish_timeout=600,  # then it stays on disk for `wandb sync`
            console="off",
            x_disable_stats=True,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
        ),
        **options,
    )
    if run.resumed:  # online: by what the server has, and by the files that it is going to get
        waiting, summary = told(folder, run_id, offline=True), run.summary
        known.epochs = waiting.epochs | set(range(1, int(summary.get("epoch") or 0) + 1))
        known.steps, known.error = run.step, bool(summary.get("error"))
    return run, known


def _forget() -> None:
    """What a session of this process that failed to begin has read of the environment.

    ``wandb.teardown`` waits for W&B's service to end, and the service may have lost the word to do so: it drops a
    connection whose answer came too late, and whatever waits behind that answer. So a thread waits for it. A service
    that is left over ends with this process.
    """
    import wandb

    if wandb.run is None:
        ended = threading.Thread(target=wandb.teardown, daemon=True)
        ended.start()
        ended.join(TEARDOWN_SECONDS)


def _known_id(path: Path) -> str:
    """The run's id; a new one where there is none, or a damaged one."""
    try:
        known = path.read_text("utf-8").strip()
    except (OSError, ValueError):
        known = ""
    return known if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", known) else uuid.uuid4().hex[:8]


def readable(name: str) -> str:
    """A name of overrides without what is no name: the checkpoint that a run goes on with, and folders of paths.

    >>> readable("model=l2q,dataset.dir=/data/events.csv,ckpt_path=/runs/1/last.ckpt")
    'model=l2q,dataset.dir=events.csv'
    """
    pairs = re.split(r",(?=[+~]*[\w./@]+=)", name)
    kept = [pair.partition("=") for pair in pairs if not pair.startswith("ckpt_path=")]
    return ",".join(f"{key}{equals}{value.rpartition('/')[2]}" for key, equals, value in kept)


def _last_part(path: str | None) -> str | None:
    return None if path is None else path.rstrip("/").rpartition("/")[2]


@contextmanager
def _files_in(folder: Path) -> Iterator[None]:
    """Has W&B put the files of tables and artifacts into the run's ``folder``. By itself it puts them below the user's
    home. There they are lost with the machine, and a home that cannot be written has none."""
    mine = {"WANDB_DATA_DIR": str(folder.absolute() / "wandb" / "data")}
    with _variables(mine | {"WANDB_CACHE_DIR": str(folder.absolute() / "wandb" / "cache")}):
        yield


@contextmanager
def _without_variables() -> Iterator[None]:
    """Takes W&B's variables out of the environment: one of them may be what W&B failed at."""
    with _variables({key: None for key in os.environ if key.startswith("WANDB_") and key != "WANDB_SILENT"}):
        yield


@contextmanager
def _variables(changes: Mapping[str, str | None]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(changes: Mapping[str, str | None]) -> None:
    for key, value in changes.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
