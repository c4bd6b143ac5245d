"""What a sweep is made of: jobs from composed configurations, how they ended, and how to go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2q import settings
from l2q.errors import L2QError
from l2q.learning import naming
from l2q.learning.jobs import Job, Outcome, folder_name
from l2q.learning.leftovers import Before


class Refused(BaseException):
    """An L2QError on its way out of Hydra, which would show the traceback of any ``Exception``."""


@contextmanager
def refused() -> Iterator[None]:
    """Within it, an L2QError becomes ``Refused``."""
    try:
        yield
    except L2QError as error:
        raise Refused(error) from None


def plain(config: DictConfig) -> dict[str, Any]:
    """The values of a job, without what belongs to the command line. Raises L2QError for one that is not given."""
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key not in settings.COMMAND_LINE])
    try:
        if missing := sorted(OmegaConf.missing_keys(kept)):
            raise L2QError(f"{' and '.join(missing)} has no default: give {missing[0]}=VALUE")
        values: Any = OmegaConf.to_container(kept, resolve=True)
    except OmegaConfBaseException as error:  # of a ${name} that leads nowhere
        raise L2QError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    return values


def show(config: DictConfig, values: Any) -> None:
    """Prints the ``values`` that a command line comes to, where it asks for them by ``print_config=true``."""
    if config.print_config:
        print(OmegaConf.to_yaml(OmegaConf.create(values)))


def job(config: DictConfig, overrides: Sequence[str], folder: Path, swept: Sequence[str]) -> Job:
    """The job of a sweep in ``folder`` that these ``overrides`` make; ``swept`` keys name it, or the model where there
    are none."""
    given = dict(word.lstrip("+").partition("=")[::2] for word in overrides if "=" in word)
    said = {key: given[key] for key in swept if key in given}
    name = ",".join(f"{key}={short(key, value)}" for key, value in said.items())
    values = plain(config)
    said = said or {"model": values["model"]["name"]}
    show(config, values)
    made = Job(values, folder, naming.command(values, overrides), name or naming.title(values), folder.name)
    return Job(made.config, folder / folder_name(said, made.identity), made.command, made.name, made.group)


def short(key: str, value: str) -> str:
    """Where a set lies is too long to show."""
    return re.sub(r".*/", "", value) if key in ("dataset.dir", "ckpt_path") else value


@dataclass
class Sweep:
    """The outcomes of all jobs of this process, whichever launcher did them. They lie in ``folder``, which the option
    ``place`` names; ``named`` where the same command finds it again. ``closing`` are a search's last words.
    ``before``: what stood in the folder when the process began."""

    jobs: list[Job] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    folder: Path | None = None
    place: str = "hydra.run.dir"
    named: bool = True
    closing: str = ""
    before: Before | None = None

    def run(self, jobs: Sequence[Job], launcher: Callable[[Sequence[Job]], list[Outcome]]) -> list[Outcome]:
        for waiting in jobs:
            waiting.wait()
        found = launcher(jobs)
        self.jobs += jobs
        self.outcomes += found
        return found

    @property
    def failed(self) -> list[tuple[Job, Outcome]]:
        pairs = zip(self.jobs, self.outcomes, strict=True)
        return [(job, outcome) for job, outcome in pairs if outcome.state not in ("done", "pruned")]

    def summary(self) -> str:
        """How many were done, and a line for each that was not."""
        reused = sum(outcome.reused for outcome in self.outcomes)
        pruned = sum(outcome.state == "pruned" for outcome in self.outcomes)
        done = len(self.outcomes) - len(self.failed) - pruned
        lines = [
            f"{done} of {len(self.outcomes)} jobs are done"
            + (f", {reused} from before" if reused else "")
            + (f", {pruned} pruned" if pruned else "")
        ]
        if self.failed:
            reasons: dict[str, list[str]] = {}
            for job, end in self.failed:
                reasons.setdefault(end.reason, []).append(job.name)
            lines.append(f"{len(self.failed)} failed:")
            lines += [f"  {_listed(names)}: {reason}" for reason, names in reasons.items()]
        return "\n".join(lines)


def _listed(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - shown
    return "; ".join(names[:shown]) + (f"; and {more} more" if more > 0 else "")


SWEEP = Sweep()
