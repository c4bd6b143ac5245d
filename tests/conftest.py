"""Fixtures that every test file may use, and an environment without account or display."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import l2q  # noqa: F401  before NumPy and torch, which read when they load what it sets

# isort: split

import pytest

if TYPE_CHECKING:
    from runs import Trained

    from l2q.interactions import Interactions

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")
# kernels in parallel on one core, too; here, since Numba takes it when it is imported
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("gowalla")``: the folder of a public set beside the repository; the test is skipped
    with the reason "dataset gowalla absent" where there is none (``.ci/run`` reads that reason)."""

    def folder(name: str) -> Path:
        path = SHARED / name
        if not path.is_dir():
            pytest.skip(f"dataset {name} absent")
        return path

    return folder


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """``threads(2)``: so many have torch, our kernels and BLAS until the test has ended."""
    import torch
    from threadpoolctl import OpenBLASController, threadpool_limits

    before, limits = torch.get_num_threads(), []

    def set_to(count: int) -> None:
        torch.set_num_threads(count)
        OpenBLASController.clear_controlling_thread(force=True)
        limits.append(threadpool_limits(count, user_api="blas"))

    yield set_to
    torch.set_num_threads(before)
    OpenBLASController.clear_controlling_thread(force=True)
    for limit in reversed(limits):
        limit.restore_original_limits()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A float model on a small table of events, at a rate so high that its validation goes up and down."""
    from runs import train_recorded

    return train_recorded(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def communities() -> "Interactions":
    """90 users and 90 items of three communities, with some noise, popular items first in each."""
    import numpy as np

    from l2q.interactions import Interactions

    rng = np.random.default_rng(5)
    users = np.repeat(np.arange(90), 12)
    items = (users % 3) * 30 + np.minimum(rng.exponential(8, len(users)).astype(int), 29)
    noise = rng.random(len(users)) < 0.15
    items[noise] = rng.integers(0, 90, noise.sum())
    return Interactions.from_pairs(users, items, num_users=90, num_items=90)
