"""Callbacks by value: code statistics, patience after annealing, the step of a loss that is not finite."""

import time
from types import SimpleNamespace

import numpy as np
import presets
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from l2q.errors import L2QError
from l2q.learning.callbacks import (
    AnnealingCallback,
    FiniteLoss,
    LastCheckpoint,
    PatienceAfterAnnealing,
    TimeSplit,
    code_statistics,
)
from l2q.representations import Representations, Rows


def codes(users: list, items: list, scales: list | None = None) -> Representations:
    return Representations(
        users=Rows(np.array(users, np.int8)),
        items=Rows(np.array(items, np.int8), None if scales is None else np.array(scales, np.float32)),
        dims=(2,),
        weights=np.ones(1, np.float32),
    )


def test_code_statistics():
    before = codes([[1, 1], [1, -1]], [[1, 1], [-1, 1]], [[1.0], [3.0]])
    now = codes([[1, 1], [1, 1]], [[1, 1], [1, 1]], [[1.0], [3.0]])
    first = code_statistics(before, None)
    # bits: columns (1, 1, 1, -1) and (1, -1, 1, 1), both with mean 1/2; scales 1 and 3: deviation 1, mean 2
    assert first == {"codes/bit_balance": 0.5, "codes/scale_spread": 0.5}
    second = code_statistics(now, before)
    assert second["codes/flip_ratio"] == 2 / 8
    assert second["codes/bit_balance"] == 1
    assert "codes/scale_spread" not in code_statistics(codes([[1, 1]], [[1, 1]]), None)


def module_at(progress: float) -> SimpleNamespace:
    quantizer = SimpleNamespace(strength=0.0)
    logged: dict[str, float] = {}
    return SimpleNamespace(
        share_done=lambda: progress,
        encoder=SimpleNamespace(quantizer=quantizer),
        log=lambda key, value, **_: logged.__setitem__(key, value),
        logged=logged,
    )


def test_the_last_checkpoint_takes_a_twentieth_of_the_time_but_is_there_when_it_matters(
    tmp_path, monkeypatch
):
    clock, written = [0.0], []

    def write(self, trainer, module):
        written.append(trainer.current_epoch)
        clock[0] += 1

    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", write)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    validation = SimpleNamespace(measured={})
    last = LastCheckpoint(validation, tmp_path)
    for epoch in range(60):
        clock[0] += 0.9
        validation.measured = {"val/recall_20": 0.1} if epoch == 30 else {}
        trainer = SimpleNamespace(current_epoch=epoch, max_epochs=60, should_stop=epoch == 40)
        last.on_train_epoch_end(trainer, None)
    # the first, 20 s later, what was measured, where it stops early, 20 s later, the end
    assert written == [0, 23, 30, 40, 59]


@pytest.mark.parametrize(("progress", "strength"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (1.5, 1.0)])
def test_the_strength_follows_progress_and_stays_hard_after_its_end(progress, strength):
    module = module_at(progress)
    AnnealingCallback(presets.annealing("linear")).on_train_batch_start(None, module, None, 0)
    assert module.encoder.quantizer.strength == strength
    assert module.logged == {"anneal/strength": strength}


def test_patience_counts_from_the_end_of_annealing_and_measured_epochs_only():
    annealing = AnnealingCallback(presets.annealing("linear"))
    validation = SimpleNamespace(measured={"val/recall_20": 0.5})
    stopping = PatienceAfterAnnealing(annealing, validation, monitor="val/recall_20", mode="max", patience=2)
    trainer = SimpleNamespace(
        callback_metrics={"val/recall_20": torch.tensor(0.5)},
        fast_dev_run=False,
        should_stop=False,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda stop, **_: stop),
        current_epoch=0,
        world_size=1,
    )
    trainer.lightning_module = module_at(0.5)
    for _ in range(10):  # nothing gets better, but the annealing is still on
        stopping._run_early_stopping_check(trainer)
    assert not trainer.should_stop
    trainer.lightning_module = module_at(1.0)
    stopping._run_early_stopping_check(trainer)  # the first that counts: the best so far
    validation.measured = {}
    for _ in range(10):  # epochs without a measurement
        stopping._run_early_stopping_check(trainer)
    assert not trainer.should_stop
    validation.measured = {"val/recall_20": 0.5}
    stopping._run_early_stopping_check(trainer)
    assert not trainer.should_stop
    stopping._run_early_stopping_check(trainer)
    assert trainer.should_stop


def test_the_first_step_without_a_finite_loss_is_named():
    guard = FiniteLoss()
    module = SimpleNamespace(encoder=SimpleNamespace(embeddings=torch.zeros(2, 2)))
    losses = [1.0, float("nan"), float("inf"), 1.0]
    for step, loss in enumerate(losses, start=11):
        trainer = SimpleNamespace(global_step=step, is_last_batch=step == 14, current_epoch=1)
        outputs = {"loss": torch.tensor(loss)}
        if step < 14:
            guard.on_train_batch_end(trainer, module, outputs, None, step - 11)
        else:
            with pytest.raises(L2QError, match=r"not finite at step 12; .*last\.ckpt holds"):
                guard.on_train_batch_end(trainer, module, outputs, None, step - 11)


def test_the_time_split_charges_every_second_to_one_part(monkeypatch):
    """A clock that each act moves by its own power of two: what is charged where can be read off the bits."""
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def takes(seconds: float) -> None:
        clock[0] += seconds

    class Timed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, forward, backward):
            ctx.backward_seconds = backward
            takes(forward)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            takes(ctx.backward_seconds)
            return grad, None, None

    class Encoder(torch.nn.Module):
        def forward(self, x):
            return Timed.apply(x, 2, 4)

    logged: dict[str, float] = {}
    encoder = Encoder()
    module = SimpleNamespace(
        encoder=encoder, device=torch.device("cpu"), log_dict=lambda values, **_: logged.update(values)
    )
    split = TimeSplit()
    split.on_train_start(None, module)
    for evaluation in (256, 0):
        takes(1024)  # checkpoint and history of the epoch before
        split.on_train_epoch_start(None, module)
        for _ in range(2):
            takes(1)
            split.on_train_batch_start(None, module, None, 0)
            takes(64)
            x = torch.ones((), requires_grad=True)
            loss = Timed.apply(encoder(x), 8, 16)
            split.on_before_backward(None, module, loss)
            loss.backward()
            split.on_after_backward(None, module)
            takes(32)
            split.on_train_batch_end(None, module, None, None, 0)
        takes(evaluation)
        split.on_train_epoch_end(None, module)
        assert logged == {
            "time/sample": 2 * 1,
            "time/propagate": 2 * (2 + 4),
            "time/loss": 2 * (8 + 16),
            "time/optimizer": 2 * 32,
            "time/evaluate": evaluation,
            "time/other": 1024 + 2 * 64,
        }
    split.on_train_end(None, module)
    encoder(torch.ones(()))  # its hooks are gone: nothing to differentiate, and no error


def test_a_last_step_that_spoils_the_embeddings_is_named_before_they_are_kept():
    module = SimpleNamespace(encoder=SimpleNamespace(embeddings=torch.tensor([[0.0, float("nan")]])))
    trainer = SimpleNamespace(global_step=7, is_last_batch=True, current_epoch=0)
    with pytest.raises(L2QError, match=r"not finite at step 7; .*no epoch was whole"):
        FiniteLoss().on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, None, 6)
