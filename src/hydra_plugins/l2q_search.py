"""What Hydra finds of this project: a sweeper whose jobs are drawn by Optuna (``l2q.sweeps.search``)."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from l2q.learning.jobs import Job

ConfigStore.instance().store(
    group="hydra/sweeper", name="search", node={"_target_": "hydra_plugins.l2q_search.SearchSweeper"}
)
OWN = ("hparams_search", "launcher", "search", "sweep", "print_config", "hydra")  # no part of a job's command
FIRST = ("experiment", "dataset", "model")  # choices that bring others along


class SearchSweeper(Sweeper):
    """Composes the jobs that a search draws. ``hparams_search=NAME`` chooses it and says what is searched."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        from l2q import processes, settings
        from l2q.errors import L2QError
        from l2q.sweeps import search as searching
        from l2q.sweeps.search_report import conclusion
        from l2q.sweeps.sweep import SWEEP, refused

        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        with refused():
            processes.one_run("a search")
            try:
                import optuna  # noqa: F401
            except ImportError as error:
                raise L2QError("a search needs optuna; install it: pip install -e '.[sweep]'") from error
            wanted: Any = OmegaConf.to_container(self.config.get("search", {}), resolve=True)
            search = searching.Search(**wanted)
            values: Any = OmegaConf.to_container(self.config.launcher, resolve=True)
            launcher = settings.build(values, "launcher")
            self._check(arguments, list(search.ranges()))
        base = self._base(arguments)
        SWEEP.folder, SWEEP.place, SWEEP.named = folder, "hydra.sweep.dir", self.config.sweep is not None

        def make(words: Sequence[str]) -> Job:
            return self._job([*arguments, *words], [*base, *words], folder, list(search.ranges()))

        with refused():
            at_once = search.at_once or values.get("jobs", 1)
            study = searching.run(search, make, base, launcher, folder, at_once)
            SWEEP.closing = conclusion(study, search, folder)

    def _compose(self, words: Sequence[str]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(words))

    def _job(self, words: Sequence[str], said: Sequence[str], folder: Path, swept: list[str]) -> Job:
        from l2q.sweeps.sweep import job

        config = self._compose(words)
        config.hydra.job.id = config.hydra.job.num = 0  # which trial it is makes no other job
        config.hydra.runtime.output_dir = str(folder)
        return job(config, filter_overrides(said), folder, swept)

    def _check(self, arguments: Sequence[str], names: Sequence[str]) -> None:
        """Raises L2QError for options that cannot be searched, and for words that a search cannot take."""
        from l2q.errors import L2QError
        from l2q.learning.configuration import flat

        for override in OverridesParser.create().parse_overrides(list(arguments)):
            key = override.key_or_group
            if override.is_sweep_override():
                raise L2QError(
                    f"{override.input_line}: a search takes one value; put choices in search.space"
                )
            if key in names:
                raise L2QError(
                    f"{override.input_line} is given and searched; leave it out, or ~search.space.{key}"
                )
        if self.config.test:  # type: ignore[union-attr]
            raise L2QError(
                "test=true: a search leaves test unread; leave it out, and run the best command with test=true"
            )
        plain: Any = OmegaConf.to_container(self.config, resolve=False)  # type: ignore[arg-type]
        known = [*flat(plain), *self.config.hydra.runtime.choices]  # type: ignore[union-attr]
        for name in names:
            if name not in known and OmegaConf.select(self.config, name) is None:  # type: ignore[arg-type]
                near = get_close_matches(name, known, 1)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise L2QError(f"search.space.{name}: there is no such option{meant}")

    def _base(self, arguments: Sequence[str]) -> list[str]:
        """The words that come to the same configuration without the search: what was typed, the choices and the values
        of its file."""
        from l2q.learning.configuration import flat

        overrides = OverridesParser.create().parse_overrides(list(arguments))
        words = [
            str(override.input_line)
            for override in overrides
            if override.key_or_group.partition(".")[0].partition("/")[0] not in OWN
        ]
        assert self.config is not None
        chosen = {key: value for key, value in self.config.hydra.runtime.choices.items() if _ours(key)}
        for key in sorted(chosen, key=lambda key: (key not in FIRST, key)):
            said = any(word.startswith(f"{key}=") for word in words)
            differs = chosen[key] != self._compose(words).hydra.runtime.choices.get(key)
            if not said and (differs or (key in FIRST and chosen[key])):
                words.insert(0, f"{key}={chosen[key]}")
        return [*words, *_differences(flat(_values(self._compose(words))), flat(_values(self.config)))]


def _ours(group: str) -> bool:
    return group not in ("hparams_search", "launcher", "recipe") and "/" not in group and "@" not in group


def _values(config: DictConfig) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(
        config, resolve=False
    )  # what follows another option goes on to follow it
    return {key: value for key, value in found.items() if key not in OWN}


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    from l2q.sweeps.search_space import spelled

    changed = [
        f"{'' if key in before else '+'}{key}={spelled(value)}"
        for key, value in after.items()
        if key not in before or before[key] != value
    ]
    return [*changed, *(f"~{key}" for key in before if key not in after)]
