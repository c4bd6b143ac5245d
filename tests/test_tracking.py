"""Trackers: any logger of Lightning gets configuration, metrics, earlier epochs, final values and the end of a run."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger
from torch.utils.data import DataLoader

from l2q.errors import L2QError
from l2q.learning.callbacks import History
from l2q.tracking import tracker as tracking
from l2q.tracking.tracker import Tracker, connect, reason, refusals_told, tracked, tracker

CONFIG = {"model": {"name": "tiny", "dims": [8, 8]}, "seed": 0, "ckpt_path": None}
CSV_FILE = (
    "_target_: pytorch_lightning.loggers.CSVLogger\nname: csv\n"  # conf/logger/csv.yaml, if it were there
)


class Tiny(pl.LightningModule):
    """Four steps an epoch; logs what a recommender does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        loss = self.weight * batch.mean()
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def train_dataloader(self) -> DataLoader:
        return DataLoader([0.0, 1.0, 2.0, 3.0])  # type: ignore[arg-type]


def train(folder: Path, logger: Logger | None, epochs: int, resumed: bool = False) -> None:
    """A run as ``train.py`` makes one, ended after so many epochs."""
    history = History(folder, SimpleNamespace(measured={"val/recall_20": 0.125}))  # type: ignore[arg-type]
    module, last = Tiny(), folder / "last.ckpt"
    with tracked(logger, CONFIG) as run:
        trainer = pl.Trainer(
            max_epochs=epochs,
            logger=logger or False,
            callbacks=[history],
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            default_root_dir=folder,
        )
        trainer.fit(module, ckpt_path=last if resumed else None, weights_only=True)
        trainer.save_checkpoint(last)
        final = {"test/recall_20": 0.25, "epochs": epochs, "git_commit": "abc", "teacher": {"gamma": 0.5}}
        run.log_summary(final, None, module.global_step)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_one_file_of_options_is_all_that_another_logger_needs(tmp_path):
    """Lightning's own CSV logger: configuration, every epoch, final values; a resumed run begins with what came
    before it."""
    (tmp_path / "csv.yaml").write_text(CSV_FILE)
    values = OmegaConf.to_container(OmegaConf.load(tmp_path / "csv.yaml"))
    logger = connect(values, tmp_path, "model=tiny,seed=0")
    assert isinstance(logger, CSVLogger)
    train(tmp_path, logger, epochs=2)
    folder = tmp_path / "csv" / "version_0"
    assert yaml.safe_load((folder / "hparams.yaml").read_text()) == {
        **CONFIG,
        "run": {"git_commit": "abc", "teacher": {"gamma": 0.5}},
    }
    rows = rows_of(folder)
    assert [(row["epoch"], float(row["train/loss"])) for row in rows if "train/loss" in row] == [
        ("0", 1.5),
        ("1", 1.5),
    ]
    assert rows[-1] == {"step": "8", "test/recall_20": "0.25", "epochs": "2.0"}

    train(tmp_path, connect(values, tmp_path, "model=tiny,seed=0"), epochs=3, resumed=True)
    rows = rows_of(tmp_path / "csv" / "version_1")
    epochs = [(row["epoch"], row["step"]) for row in rows if "train/loss" in row]
    assert epochs == [("0", "3"), ("1", "7"), ("2", "11")]
    assert [row["val/recall_20"] for row in rows[:2]] == ["0.125", "0.125"]
    assert rows[-1] == {"step": "12", "test/recall_20": "0.25", "epochs": "3.0"}


class Recorder(Logger):
    """What a logger is told, in its order."""

    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple] = []

    def log_hyperparams(self, params, *_, **__) -> None:
        self.told.append(("hyperparameters", params))

    def log_metrics(self, metrics, step=None) -> None:
        self.told.append(("metrics", metrics, step))

    def finalize(self, status) -> None:
        self.told.append(("end", status))


def test_a_run_is_told_from_its_configuration_to_its_end():
    logger = Recorder()
    with tracked(logger, CONFIG) as run:
        assert logger.told == [("hyperparameters", CONFIG)]
        run.log_summary({"test/recall_20": 0.25, "epochs": 3, "model": "tiny"}, Path("training.png"), 12)
    assert logger.told[1:] == [
        ("metrics", {"test/recall_20": 0.25, "epochs": 3.0}, 12),
        ("hyperparameters", {"run": {"model": "tiny"}}),
        ("end", "success"),
    ]


@pytest.mark.parametrize("error", [L2QError("the loss is not finite"), KeyboardInterrupt()])
def test_a_failed_run_is_marked_as_one(error):
    logger = Recorder()
    with pytest.raises(type(error)), tracked(logger, CONFIG):
        raise error
    assert logger.told[-2:] == [
        ("hyperparameters", {"run": {"error": reason(error)}}),
        ("end", "failed"),
    ]


def test_a_reason_is_one_line():
    assert reason(L2QError("the loss is\nnot finite")) == "the loss is not finite"
    assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert reason(ValueError("x" * 999)) == "ValueError: " + "x" * 500


class Refused:
    @refusals_told
    def __init__(self, config, folder, *, command="", name="run", group=None) -> None:
        raise L2QError("epochs=-1 must be a whole number of at least 0")


def test_a_job_of_a_sweep_that_is_refused_is_told_as_failed_and_a_single_run_is_not(tmp_path, monkeypatch):
    made: list[Recorder] = []

    def logger(run_name, group):
        made.append(Recorder())
        made[-1].told.append((run_name, group))
        return made[-1]

    monkeypatch.setattr(tracking, "example", logger, raising=False)
    config = CONFIG | {"logger": {"_target_": "l2q.tracking.tracker.example"}}
    with pytest.raises(L2QError, match="epochs=-1"):
        Refused(config, tmp_path, name="epochs=-1")
    assert made == []
    with pytest.raises(L2QError, match="epochs=-1"):
        Refused(config, tmp_path, name="epochs=-1", group="sweep")
    assert made[0].told == [
        ("epochs=-1", "sweep"),
        ("hyperparameters", config),
        ("hyperparameters", {"run": {"error": "epochs=-1 must be a whole number of at least 0"}}),
        ("end", "failed"),
    ]
    # what is refused may be the logger itself: the first reason is the one that is raised
    with pytest.raises(L2QError, match="epochs=-1"):
        Refused(CONFIG | {"logger": {"_target_": "no.such"}}, tmp_path, name="epochs=-1", group="sweep")


def test_without_a_logger_all_is_told_to_nobody(tmp_path):
    assert connect({"_target_": "l2q.tracking.tracker.no_logger"}, tmp_path, "name", "group") is None
    assert type(tracker(None)) is Tracker
    train(tmp_path, None, epochs=1)
    assert {path.name for path in tmp_path.iterdir()} == {"history.csv", "last.ckpt"}


def test_a_logger_is_given_what_it_takes_and_the_file_does_not_say(tmp_path, monkeypatch):
    def logger(save_dir, run_name, group="none", level=0):
        return save_dir, run_name, group, level

    monkeypatch.setattr(tracking, "example", logger, raising=False)
    values = {"_target_": "l2q.tracking.tracker.example", "save_dir": "elsewhere", "level": 2}
    assert connect(values, tmp_path, "name", "sweep") == ("elsewhere", "name", "sweep", 2)
    del values["save_dir"]
    assert connect(values, tmp_path, "name", "sweep") == (str(tmp_path), "name", "sweep", 2)
    with pytest.raises(L2QError, match=r"logger\.levle: there is no such option; did you mean level\?"):
        connect(values | {"levle": 1}, tmp_path, "name")


def test_a_logger_whose_package_is_absent_is_refused_in_one_line(tmp_path, monkeypatch):
    def logger():
        raise ModuleNotFoundError("No module named 'tensorboard'.\n Please install it.")

    monkeypatch.setattr(tracking, "example", logger, raising=False)
    with pytest.raises(
        L2QError, match=r"tensorboard'\. Please install it\.; install it, or give logger=none"
    ) as caught:
        connect({"_target_": "l2q.tracking.tracker.example"}, tmp_path, "name")
    assert "\n" not in str(caught.value)
