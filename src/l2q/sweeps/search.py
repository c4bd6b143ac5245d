"""A search: a sweep whose jobs Optuna draws, one after what the others came to. Its trials are kept in a data base
beside the jobs, so that the same search goes on wherever it was broken off.

A trial is drawn, its job is done, and what it came to is told; in this order, so a trial that was drawn and not told
is taken up again, with its number and values, in the folder that its job finds. A draw depends on the seed, the trial's
number and the trials before it alone: a search that was broken off draws what an undisturbed one draws.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from l2q.errors import L2QError
from l2q.learning import jobs
from l2q.learning.configuration import flat
from l2q.learning.jobs import Job, Outcome
from l2q.options import Count, Whole, options
from l2q.sweeps import search_space
from l2q.sweeps.search_space import Choice, Range
from l2q.sweeps.sweep import SWEEP

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

LOCK, DATABASE = "search.lock", "search.db"
PATIENCE = 60  # seconds that a process waits for the data base while others write
SETTINGS = "settings"  # of the study: what makes it this search


@options("search.sampler")
class Sampler:
    """TPE (Bergstra et al. 2011), over all options together. ``startup_trials`` are drawn at random before."""

    seed: Whole
    startup_trials: Count


@options("search.pruning")
class Pruning:
    """A trial ends at a validation where the best that it has measured is below the median of the others at that epoch
    (above, where less is better): once ``startup_trials`` are done, and ``warmup_epochs`` after its start."""

    startup_trials: Whole
    warmup_epochs: Whole


@options("search")
class Search:
    """What ``conf/hparams_search`` says: so many ``trials``, each with a value for every option of ``space``, for the
    best ``metric``. ``at_once`` None: as many as the launcher runs; ``storage`` None: a file in the sweep's folder."""

    trials: Count
    metric: str
    direction: Literal["maximize", "minimize"]
    sampler: Sampler
    pruning: Pruning | None
    at_once: Count | None
    storage: str | None
    space: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"val/\w+", self.metric):
            raise L2QError(
                f"search.metric={self.metric} is not measured on validation; give val/recall_20, say"
            )
        self.ranges()

    def ranges(self) -> dict[str, Range | Choice]:
        """What every option may be. Raises L2QError for what is no range and no list of choices."""
        return search_space.read(self.space)

    def options(self, base: Job) -> dict[str, Any]:
        """What must be the same for trials to stand beside each other: all but their number and where they are kept,
        and the options of the job that they vary."""
        parts = {
            key: value for key, value in asdict(self).items() if key not in ("trials", "at_once", "storage")
        }
        parts["space"] = {key: asdict(entry) for key, entry in self.ranges().items()}
        said = json.dumps(flat({"search": parts}) | base.options, default=str)
        return json.loads(said)  # as it comes back from the data base


@dataclass(frozen=True)
class Watch:
    """Tells a trial the validations of its job, in whichever process that runs, and answers with a reason to end it.

    ``trial`` is its id in the data base at ``url``, which may hold more than this ``study``.
    """

    url: str
    study: str
    trial: int
    metric: str
    pruning: Pruning | None

    def __call__(self, epoch: int, measured: Mapping[str, float]) -> str | None:
        value = measured.get(self.metric)
        if value is None:
            return None
        study, trial = _trial(self)
        if (
            epoch not in study._storage.get_trial(self.trial).intermediate_values
        ):  # else it goes on from before
            trial.report(value, epoch)
        if not trial.should_prune():
            return None
        best, beside = (max, "below") if study.direction.name == "MAXIMIZE" else (min, "above")
        value = best(study._storage.get_trial(self.trial).intermediate_values.values())
        return f"pruned after epoch {epoch}: {self.metric} {value:.4f} at best, {beside} the median of other trials"


@lru_cache(maxsize=1)
def _trial(watch: Watch) -> tuple[Study, Trial]:
    import optuna

    found = optuna.load_study(
        study_name=watch.study, storage=_storage(watch.url), pruner=_pruner(watch.pruning)
    )
    return found, optuna.trial.Trial(found, watch.trial)


def run(
    search: Search,
    make: Callable[[Sequence[str]], Job],
    base: Sequence[str],
    launcher: Callable[[Sequence[Job]], list[Outcome]],
    folder: Path,
    at_once: int,
) -> Study:
    """Goes on to the number of trials that is asked for; the study, with all of them.

    ``make`` gives the job of a command line's words, ``base`` are the words of all. Raises L2QError where another
    process is at it, or where ``folder`` holds another search.
    """
    from l2q.sweeps.search_report import write

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise L2QError(
            f"another process is at the search in {folder}; wait, or give another sweep=NAME"
        ) from None
    try:
        study, url = _opened(search, make, folder)
        before = [trial.state.is_finished() for trial in study.trials]
        print(
            f"search for {search.trials} trials in {folder}"
            + (f"; {sum(before)} from before" if any(before) else "")
        )
        seen: set[int] = set()
        while batch := _batch(study, search, at_once, seen):
            made = [_job(trial, _drawn(trial, search), make, base, url, search) for trial in batch]
            _do(study, search, batch, made, launcher)
            write(study, search, folder)
        write(study, search, folder, pictures=True)
        return study
    finally:
        lock.release()


def _opened(search: Search, make: Callable[[Sequence[str]], Job], folder: Path) -> tuple[Study, str]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = search.storage or f"sqlite:///{folder.resolve() / DATABASE}"
    try:
        study = optuna.create_study(
            study_name=folder.name, storage=_storage(url), direction=search.direction, load_if_exists=True
        )
    except Exception as error:  # of SQLAlchemy and of the driver that the URL names
        said = str(error).splitlines()[0]
        raise L2QError(f"search.storage={url} cannot be opened: {said}") from None
    wanted = search.options(make([]))
    found = study.user_attrs.get(SETTINGS)
    if found is None:
        study.set_user_attr(SETTINGS, wanted)
    elif found != wanted:
        raise L2QError(
            f"{folder} holds a search with other options: {jobs.changed(found, wanted)}; "
            "give another sweep=NAME, or remove it"
        )
    return study, url


def _storage(url: str) -> Any:
    from optuna.storages import RDBStorage

    patient = {"connect_args": {"timeout": PATIENCE}} if url.startswith("sqlite:") else {}
    return RDBStorage(url, engine_kwargs=patient)


def _pruner(pruning: Pruning | None) -> Any:
    from optuna.pruners import MedianPruner, NopPruner

    if pruning is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=pruning.startup_trials, n_warmup_steps=pruning.warmup_epochs)


def _batch(study: Study, search: Search, at_once: int, seen: set[int]) -> list[Trial]:
    """The next trials: those that were broken off or failed, then new ones."""
    from optuna.trial import Trial

    known = study.get_trials(deepcopy=False)
    left = [trial for trial in known if not trial.state.is_finished() and trial.number not in seen][:at_once]
    batch = []
    for number in [trial.number for trial in left] or range(len(known), search.trials)[:at_once]:
        study.sampler = _sampler(search.sampler, number)
        again = next((trial for trial in left if trial.number == number), None)
        batch.append(study.ask() if again is None else Trial(study, again._trial_id))
        for name, entry in search.ranges().items():
            entry.draw(batch[-1], name)
    seen |= {trial.number for trial in batch}
    return batch


def _sampler(sampler: Sampler, number: int) -> Any:
    from optuna.samplers import TPESampler

    seed = int(np.random.SeedSequence([sampler.seed, number]).generate_state(1)[0])
    return TPESampler(seed=seed, n_startup_trials=sampler.startup_trials, multivariate=True)


def _drawn(trial: Trial, search: Search) -> list[str]:
    """The words of a trial on the command line."""
    return [f"{name}={entry.value(trial.params[name])}" for name, entry in search.ranges().items()]


def _job(
    trial: Trial,
    words: Sequence[str],
    make: Callable[[Sequence[str]], Job],
    base: Sequence[str],
    url: str,
    search: Search,
) -> Job:
    made = make(words)
    if made.config["test"]:
        raise L2QError(
            "test=true: a search leaves test unread; run its best command with test=true at the end"
        )
    trial.set_user_attr("folder", made.folder.name)
    trial.set_user_attr("command", f"python train.py {shlex.join([*base, *words])}")
    print(f"trial {trial.number}: {made.name}", flush=True)
    return replace(
        made, watch=Watch(url, trial.study.study_name, trial._trial_id, search.metric, search.pruning)
    )


def _free(job: Job) -> None:
    """Waits for a job that a process of a search that was killed is still at."""
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.folder / jobs.LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process with {job.name}", flush=True)
        lock.acquire()
    lock.release()


def _do(
    study: Study,
    search: Search,
    trials: Sequence[Trial],
    made: Sequence[Job],
    launcher: Callable[[Sequence[Job]], list[Outcome]],
) -> None:
    """Does the jobs, each once though several trials may have drawn it, and tells the trials."""
    from optuna.trial import TrialState

    for job in made:
        _free(job)
    different = list({job.folder: job for job in reversed(made)}.values())[::-1]
    outcomes = dict(zip((job.folder for job in different), SWEEP.run(different, launcher), strict=True))
    for trial, job in zip(trials, made, strict=True):
        outcome = outcomes[job.folder]
        if outcome.state == "done":
            value = outcome.metrics.get(search.metric)
            if value is None:
                there = ", ".join(key for key in outcome.metrics if key.startswith("val/")) or "nothing"
                raise L2QError(f"search.metric={search.metric} was not measured; there is {there}")
            study.tell(trial, value)
            said = f"{search.metric} {value:.4f}"
            if study.best_trial.number == trial.number:
                said += ", the best so far"
        elif outcome.state == "pruned":
            study.tell(trial, state=TrialState.PRUNED)
            said = outcome.reason
        else:  # stays open: the same command tries it again
            said = f"{outcome.state}: {outcome.reason}"
        print(f"trial {trial.number}: {said}", flush=True)
