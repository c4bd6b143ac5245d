"""What Hydra finds of this project: a launcher that does jobs as ``l2q.sweeps`` does, each in a folder that is found
again by its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

ConfigStore.instance().store(
    group="hydra/launcher", name="l2q", node={"_target_": "hydra_plugins.l2q_sweeps.SweepLauncher"}
)


class SweepLauncher(Launcher):
    """Composes the jobs' configurations, and hands them to the way that ``launcher=`` names."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from l2q import processes, settings
        from l2q.sweeps.sweep import SWEEP, job, refused

        with refused():
            processes.one_run("a sweep")
        folder, swept = Path(self.config.hydra.sweep.dir), self._swept()
        composed = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.runtime.output_dir = str(folder)
            composed.append(config)
        with refused():
            jobs = [
                job(config, filter_overrides(overrides), folder, swept)
                for config, overrides in zip(composed, job_overrides, strict=True)
            ]
            values: Any = OmegaConf.to_container(self.config.launcher, resolve=True)
            launcher = settings.build(values, "launcher")
        SWEEP.folder, SWEEP.place, SWEEP.named = folder, "hydra.sweep.dir", self.config.sweep is not None
        with refused():
            outcomes = SWEEP.run(jobs, launcher)
        return [
            JobReturn(
                overrides=overrides,
                cfg=config,
                working_dir=str(made.folder),
                status=JobStatus.COMPLETED,  # a failed one is counted by the sweep, and does not end it
                _return_value=outcome.metrics,
            )
            for overrides, config, made, outcome in zip(job_overrides, composed, jobs, outcomes, strict=True)
        ]

    def _swept(self) -> list[str]:
        """What varies between jobs, as it was typed."""
        words = [*self.config.hydra.overrides.task, *filter(None, self._params())]
        parsed = OverridesParser.create().parse_overrides(words)
        return [override.key_or_group for override in parsed if override.is_sweep_override()]

    def _params(self) -> list[str]:
        params = OmegaConf.select(self.config, "hydra.sweeper.params") or {}
        return [f"{key}={value}" for key, value in params.items()]
