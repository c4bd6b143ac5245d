"""Every option of Lightning's trainer works in a run, or is refused in one line that says what to do instead."""

import inspect
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from runs import EVERY_EPOCH, ROOT, composed, figures, history_of, run, table

from l2q import settings
from l2q.errors import L2QError
from l2q.learning import trainer as options
from l2q.learning.jobs import Job
from l2q.learning.run import Run

LIGHTNING = inspect.signature(pl.Trainer).parameters
TAKEN = inspect.signature(options.taken).parameters
# a value of each option that is refused
ASKED: dict[str, Any] = {
    "devices": 2,
    "strategy": "ddp",
    "num_nodes": 2,
    "use_distributed_sampler": "false",
    "sync_batchnorm": "true",
    "precision": "16-mixed",
    "logger": "true",
    "callbacks": "[]",
    "plugins": "[]",
    "default_root_dir": "elsewhere",
    "enable_checkpointing": "false",
    "enable_model_summary": "true",
    "fast_dev_run": "true",
    "barebones": "true",
    "max_steps": 10,
    "min_steps": 10,
    "limit_val_batches": 2,
    "val_check_interval": 0.5,
    "check_val_every_n_epoch": 2,
    "num_sanity_val_steps": 2,
    "limit_test_batches": 2,
    "limit_predict_batches": 2,
    "reload_dataloaders_every_n_epochs": 1,
    "inference_mode": "false",
    "benchmark": "true",
    "enable_autolog_hparams": "false",
    "model_registry": "mine",
}
SHOWN: set[str] = set()


def shows(*names: str) -> Callable[[Any], Any]:
    """Marks the test that shows what these options do."""
    SHOWN.update(names)
    return lambda test: test


class Probe(Callback):
    """Keeps what a training sees: its trainer, its batches, and torch's modes."""

    made: ClassVar[list["Probe"]] = []

    def __init__(self) -> None:
        self.trainer: Any = None
        self.batches: dict[int, list[torch.Tensor]] = {}
        self.gradients: list[torch.Tensor] = []
        self.modes: set[tuple[bool, bool, bool]] = set()
        Probe.made.append(self)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.trainer = trainer

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        self.batches.setdefault(trainer.current_epoch, []).append(torch.stack(batch[:2]))
        self.modes.add(
            (
                torch.is_anomaly_enabled(),
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            )
        )

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.gradients.append(module.encoder.embeddings.grad.clone())


@pytest.fixture
def words(tmp_path):
    """A small model on a small table, four batches an epoch, watched by a probe."""
    probe = f"+callbacks.probe._target_={Probe.__module__}.Probe"
    small = ["model=lightgcn", "model.embedding_dim=8", "epochs=3", "batch_size=96", "learning_rate=0.1"]
    return [*table(tmp_path / "events.csv"), *small, EVERY_EPOCH, "trainer=cpu", probe]


def probed(folder: Path, *words: str) -> Probe:
    run(folder, *words)
    return Probe.made.pop()


def test_every_option_of_lightning_is_taken_or_refused():
    """One that Lightning adds fails here until somebody decides."""
    assert sorted([*TAKEN, *options.REFUSED]) == sorted(LIGHTNING)
    assert ASKED.keys() == options.REFUSED.keys()
    # what Lightning does by itself is no wish; devices are one, whatever there is
    assert [
        name
        for name, refused in options.REFUSED.items()
        if LIGHTNING[name].default not in refused.harmless and name != "devices"
    ] == []
    ours = [
        name for name in TAKEN if name not in ("max_epochs", "accelerator")
    ]  # which conf/trainer always gives
    assert {name: TAKEN[name].default for name in ours} == {name: LIGHTNING[name].default for name in ours}


def test_every_option_that_is_taken_is_shown_to_work():
    assert set(TAKEN) == SHOWN


@pytest.mark.parametrize("name", options.REFUSED)
def test_an_option_that_a_run_cannot_have_is_refused_in_one_line(tmp_path, words, name):
    with pytest.raises(L2QError, match=rf"^trainer\.{name}=.+: \S+ .+") as caught:
        Run(composed("logger=none", *words, f"++trainer.{name}={ASKED[name]}"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", options.REFUSED)
def test_what_lightning_does_anyway_may_be_said(name):
    for value in options.REFUSED[name].harmless:
        options.check({"max_epochs": 1, "accelerator": "cpu", name: value})


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("precision=bf16-true", "trainer.precision=bf16-true: training computes in float32"),
        ("max_epoch=3", "trainer.max_epoch: there is no such option; did you mean max_epochs?"),
        ("max_epochs=-1", "trainer.max_epochs=-1 must be a whole number of at least 0"),
        ("limit_train_batches=0", "trainer.limit_train_batches=0 must be a whole number of at least 1 or"),
        ("max_time=5s", "trainer.max_time=5s must be DAYS:HOURS:MINUTES:SECONDS"),
        ("max_time.secnds=5", "trainer.max_time={'secnds': 5} must be DAYS:HOURS:MINUTES:SECONDS"),
        ("profiler=xla", "trainer.profiler=xla must be one of simple, advanced, pytorch"),
        ("accelerator=tpu", "trainer.accelerator=tpu must be one of auto, cpu, gpu, cuda"),
        ("gradient_clip_algorithm=norm", "trainer.gradient_clip_algorithm clips nothing without"),
        ("gradient_clip_val=-1", "trainer.gradient_clip_val=-1 must be a number of at least 0"),
        ("devices=[0,1]", "trainer.devices=[0, 1]: a process trains on one device"),
        ("devices=auto", "trainer.devices=auto: a process trains on one device"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(tmp_path, words, word, said):
    with pytest.raises(L2QError, match="^" + re.escape(said)) as caught:
        Run(composed("logger=none", *words, f"++trainer.{word}"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@shows("accelerator")
def test_a_gpu_that_is_not_there_is_refused_before_anything_runs(tmp_path, words, monkeypatch):
    assert probed(tmp_path / "cpu", *words).trainer.strategy.root_device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for wish in ("trainer=gpu", "trainer.accelerator=cuda"):
        with pytest.raises(
            L2QError, match=r"^trainer.accelerator=\w+: torch finds no GPU here; give trainer=cpu"
        ):
            Run(composed("logger=none", *words, wish), tmp_path / "run")


def test_what_lightning_refuses_while_it_trains_is_one_line(tmp_path, words):
    # half a batch of four
    with pytest.raises(L2QError, match=r"^trainer: You requested to check 0\.1 of") as caught:
        run(tmp_path, *words, "+trainer.limit_train_batches=0.1")
    assert "\n" not in str(caught.value)
    # a callback that wants a logger
    rate = "+callbacks.rate._target_=pytorch_lightning.callbacks.LearningRateMonitor"
    with pytest.raises(L2QError, match=r"^trainer: Cannot use `LearningRateMonitor` callback with"):
        run(tmp_path, *words, rate)


@shows("max_epochs")
def test_a_run_that_ends_before_its_first_validation_says_so(tmp_path, words, caplog):
    caplog.set_level("INFO", "l2q")
    metrics = run(tmp_path, *words, "trainer.max_epochs=2", "protocol.every_n_epochs=3")
    assert "epoch 2, the last one, is kept; trained 2 of 2 epochs; none of them was validated" in caplog.text
    assert "since protocol.every_n_epochs=3" in caplog.text
    assert metrics["epochs"] == len(history_of(tmp_path)) == 2
    assert metrics["val/recall_20"] > 0  # measured at the end


@shows("min_epochs")
def test_patience_waits_for_the_least_epochs(tmp_path, words):
    hasty = ["epochs=40", "protocol.patience=1", "learning_rate=0.5"]
    run(tmp_path / "one", *words, *hasty)
    ended = len(history_of(tmp_path / "one"))
    assert ended < 20
    run(tmp_path / "two", *words, *hasty, f"+trainer.min_epochs={ended + 5}")
    assert len(history_of(tmp_path / "two")) >= ended + 5


@shows("max_time")
def test_the_longest_time_ends_a_whole_epoch_says_so_and_can_be_gone_on_with(
    tmp_path, words, caplog, monkeypatch
):
    caplog.set_level("INFO", "l2q")
    expected = run(tmp_path / "whole", *words, "epochs=9")
    # a clock that goes on by ten seconds whenever it is read
    monkeypatch.setattr(
        "pytorch_lightning.callbacks.timer.time", SimpleNamespace(monotonic=itertools.count(0, 10).__next__)
    )
    words += ["epochs=9"]
    run(tmp_path / "cut", *words, "+trainer.max_time=00:00:00:25")
    done = len(history_of(tmp_path / "cut"))
    assert 0 < done < 9
    assert f"trained {done} of 9 epochs, since trainer.max_time=00:00:00:25 is over" in caplog.text
    assert history_of(tmp_path / "cut") == history_of(tmp_path / "whole")[:done]
    last = f"ckpt_path={tmp_path}/cut/checkpoints/last.ckpt"
    # the time that is over stays so
    run(tmp_path / "cut", *words, last, "+trainer.max_time=00:00:00:25")
    assert len(history_of(tmp_path / "cut")) == done
    found = run(tmp_path / "cut", *words, last, "+trainer.max_time.hours=1")
    assert figures(found) == figures(expected)
    assert history_of(tmp_path / "cut") == history_of(tmp_path / "whole")


@shows("limit_train_batches")
def test_an_epoch_of_fewer_batches(tmp_path, words):
    whole = probed(tmp_path / "whole", *words)
    assert {len(batches) for batches in whole.batches.values()} == {4}
    for limit in ("2", "0.5"):
        cut = probed(tmp_path / limit, *words, f"+trainer.limit_train_batches={limit}")
        for epoch, batches in whole.batches.items():
            assert all(torch.equal(a, b) for a, b in zip(batches[:2], cut.batches[epoch], strict=True))


@shows("overfit_batches")
def test_overfitting_takes_the_same_batch_in_every_epoch(tmp_path, words):
    found = probed(tmp_path, *words, "+trainer.overfit_batches=1", "epochs=20", "protocol.patience=20")
    batches = [batch for (batch,) in found.batches.values()]
    assert len(batches) == 20
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    losses = [float(row["train/loss"]) for row in history_of(tmp_path)]
    assert losses[-1] < losses[0] / 5
    others = probed(tmp_path / "other", *words).batches
    assert not torch.equal(others[0][0], others[1][0])  # which is not so without


@shows("accumulate_grad_batches")
def test_a_step_of_several_batches(tmp_path, words):
    run(tmp_path, *words, "+trainer.accumulate_grad_batches=3")
    assert [row["step"] for row in history_of(tmp_path)] == ["2", "4", "6"]  # of four batches


@shows("gradient_clip_val", "gradient_clip_algorithm")
def test_gradients_are_clipped(tmp_path, words):
    plain = probed(tmp_path / "plain", *words).gradients
    norm = float(min(gradient.norm() for gradient in plain)) / 2
    by_norm = probed(tmp_path / "norm", *words, f"+trainer.gradient_clip_val={norm}").gradients
    assert all(0.99 * norm < gradient.norm() <= norm * (1 + 1e-5) for gradient in by_norm)
    most = float(min(gradient.abs().max() for gradient in plain)) / 2
    clip = [f"+trainer.gradient_clip_val={most}", "+trainer.gradient_clip_algorithm=value"]
    by_value = probed(tmp_path / "value", *words, *clip).gradients
    assert np.allclose([float(gradient.abs().max()) for gradient in by_value], most, rtol=1e-6)


@shows("deterministic", "detect_anomaly")
def test_modes_of_torch(tmp_path, words):
    def modes(*more: str) -> set[tuple[bool, bool, bool]]:
        return probed(tmp_path / "".join(more), *words, "epochs=1", *more).modes

    assert modes() == {(False, True, False)}
    assert modes("trainer.deterministic=false") == {(False, False, False)}
    assert modes("trainer.deterministic=warn") == {(False, True, True)}
    assert modes("+trainer.detect_anomaly=true") == {(True, True, False)}


@shows("log_every_n_steps")
def test_how_often_callbacks_log_steps(tmp_path, words):
    rate = "+callbacks.rate._target_=pytorch_lightning.callbacks.LearningRateMonitor"
    more = ["logger=csv", rate, "+callbacks.rate.logging_interval=step"]
    for every, rows in ((1, 12), (4, 3)):
        run(tmp_path / str(every), *words, *more, f"trainer.log_every_n_steps={every}")
        lines = (tmp_path / str(every) / "csv" / "metrics.csv").read_text().splitlines()
        column = lines[0].split(",").index("lr-Adam")
        assert sum(bool(line.split(",")[column]) for line in lines[1:]) == rows


@shows("profiler")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("simple", "run_training_epoch"),
        pytest.param("advanced", "cumtime", marks=pytest.mark.slow),
        pytest.param("pytorch", "Self CPU", marks=pytest.mark.slow),
    ],
)
def test_a_profile_lies_in_the_folder_and_changes_no_figure(tmp_path, words, word, said):
    expected = run(tmp_path / "plain", *words, "epochs=1")
    found = run(tmp_path / "profiled", *words, "epochs=1", f"+trainer.profiler={word}")
    assert said in (tmp_path / "profiled" / "fit-profile.txt").read_text()
    assert figures(found) == figures(expected)
    assert found["config_hash"] == expected["config_hash"]


@shows("enable_progress_bar")
def test_no_progress_is_shown_where_nobody_wants_it(tmp_path, words, capsys):
    run(tmp_path / "shown", *words)
    assert "epoch 2 of 3, " in capsys.readouterr().out
    run(tmp_path / "quiet", *words, "+trainer.enable_progress_bar=false")
    assert "epoch" not in capsys.readouterr().out


def test_options_of_training_have_no_effect_on_a_fitted_model_and_that_is_said(tmp_path):
    words = [*table(tmp_path / "events.csv"), "model=spectral", "logger=none"]
    with pytest.warns(
        UserWarning, match="trainer.limit_train_batches and callbacks have no effect on model=spectral"
    ):
        Run(composed(*words, "+trainer.limit_train_batches=2", "callbacks=model_summary"), tmp_path)


def test_what_makes_no_figures_makes_no_other_job(tmp_path, words):
    def identity(*more: str) -> str:
        return Job(composed("logger=none", *words, *more), tmp_path).identity

    same = ["tags=[a,b]", "print_config=true", "keep=best", "logger=csv", "callbacks=none"]
    same += ["+trainer.profiler=simple", "+trainer.enable_progress_bar=false"]
    assert {identity(word) for word in same} == {identity()}
    assert len({identity(), identity("callbacks=model_summary"), identity("+trainer.min_epochs=2")}) == 3


def test_a_callback_of_lightning_joins_ours(tmp_path, words, capsys):
    run(tmp_path, *words, "callbacks=model_summary", "epochs=1")
    assert re.search(r"encoder\s+│ Encoder", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+callbacks.mine.period=3", "callbacks.mine has no _target_; name a class of a callback"),
        ("+callbacks.mine._target_=no.such.Class", "_target_=no.such.Class cannot be found"),
        ("+callbacks.mine._target_=pathlib.Path", "callbacks.mine._target_=pathlib.Path is no callback of"),
        ("+callbacks.probe.foo=3", "callbacks.probe.foo: there is no such option"),
    ],
)
def test_what_is_no_callback_is_refused_in_one_line(tmp_path, words, word, said):
    with pytest.raises(L2QError, match="^" + re.escape(said)) as caught:
        Run(composed("logger=none", *words, word), tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keep", "left"), [("all", ["best", "last"]), ("best", ["best"]), ("last", ["last"])]
)
def test_checkpoints_that_stay(tmp_path, words, keep, left):
    expected = run(tmp_path / "plain", *words)
    cut = run(tmp_path / "cut", *words, f"keep={keep}", "trainer.max_epochs=2")
    folder = tmp_path / "cut" / "checkpoints"
    assert sorted(path.stem for path in folder.glob("*.ckpt")) == ["best", "last"]  # it may be gone on with
    assert cut["epochs"] <= 2
    found = run(tmp_path / "cut", *words, f"keep={keep}", f"ckpt_path={folder}/last.ckpt")
    assert sorted(path.stem for path in folder.glob("*.ckpt")) == left
    assert figures(found) == figures(expected)
    assert found["config_hash"] == expected["config_hash"]
    if keep == "best":
        kept = run(tmp_path / "kept", *words, "fit=false", f"ckpt_path={folder}/best.ckpt")
        assert figures(kept) == figures(expected)


def test_a_run_that_validates_nothing_keeps_its_last_checkpoint(tmp_path, words):
    words.remove(EVERY_EPOCH)
    run(tmp_path, *words, "protocol=final", "keep=best")
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.ckpt")] == ["last.ckpt"]


def test_tags_are_in_the_metrics(tmp_path, words):
    found = run(tmp_path, *words, "tags=[wide,first]", "epochs=1", command="python train.py")
    assert found["tags"] == ["wide", "first"]
    assert "tags" not in run(tmp_path / "none", *words, "epochs=1")
    assert np.isfinite(found["test/recall_20"])


def test_every_option_is_explained():
    page = (ROOT / "docs/reference/options.md").read_text()
    section = page[page.index("\n## Trainer\n") : page.index("\n## Callbacks\n")]
    assert [name for name in LIGHTNING if f"`{name}`" not in section] == []


@pytest.mark.parametrize("number", [0, 3, -1, "x"])
def test_a_gpu_that_is_not_there_is_one_line(monkeypatch, number):
    values = settings.preset("trainer/default") | {"max_epochs": 1, "devices": [number]}
    monkeypatch.setattr(options, "has_gpu", lambda: False)
    with pytest.raises(L2QError, match=r"trainer\.devices=\[.*\]: torch finds no GPU here; leave it out"):
        options.check(values)
    monkeypatch.setattr(options, "has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(L2QError, match=r"trainer\.devices=\[.*\]: trainer\.accelerator=cpu uses no GPU"):
        options.check(values | {"accelerator": "cpu"})
    if number == 0:
        options.check(values)
    else:
        with pytest.raises(L2QError, match=r"there are 2 GPUs; give the number of one, \[0\] is the first"):
            options.check(values)
