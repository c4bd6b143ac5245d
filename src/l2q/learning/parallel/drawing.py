"""The batches of an epoch, drawn by processes that have the pairs of some users each, and a part of their order.

They are the batches of one process (``l2q.data.sampling``). A negative follows from the number of its pair and the
items of its user, so whoever has these draws it. The order of the pairs is a shuffle after Fisher and Yates,

    for last = P - 1 .. 1:    swap places last and t(last)        t(last) from 0 .. last, by number

Every process has a range of the places. Those of the last range go first: whoever has it takes a block of its steps
at a time, asks the others for what is in the places t that they have, swaps, and gives it back. All t follow from the
key, so nobody has to ask which places are meant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist

from l2q import processes
from l2q.data.sampling import Triplets, TripletSampler, below, missing
from l2q.kernels import compiling

BLOCK = 1 << 18  # steps of a shuffle between two exchanges


class PartSampler(TripletSampler):
    """Draws what ``sampler`` draws, with all processes at the same time. ``own`` are the nodes, users first, whose
    neighbors ``indices`` has, of compressed rows ``indptr`` of all nodes."""

    def __init__(
        self, sampler: TripletSampler, own: tuple[int, int], indptr: np.ndarray, indices: np.ndarray
    ) -> None:
        super().__init__(
            sampler.train, sampler.batch_size, sampler.seed, sampler.candidates, sampler.by_users
        )
        self.own, self.indptr, self.indices = own, indptr, indices

    def epoch(self, epoch: int) -> Iterator[Triplets]:
        """Drawing begins with the first batch that is asked for, since nobody draws alone."""
        order, *keys = self.keys(epoch)
        for pairs in self.of_users(order) if self.by_users else self._in_order(order):
            users = np.searchsorted(self.train.indptr, pairs, "right") - 1
            batch = np.zeros((1 + self.candidates, len(pairs)), np.int32)
            _draw(
                pairs, users, self.own, self.train.indptr, self.indptr, self.indices,
                self.train.num_users, self.train.num_items, np.array(keys, np.uint64), batch,
            )  # fmt: skip
            dist.all_reduce(torch.from_numpy(batch))  # of others a process has zeros
            yield Triplets(users, batch[0].astype(np.int64), batch[1:].reshape(-1).astype(np.int64))

    def _in_order(self, key: np.uint64) -> Iterator[np.ndarray]:
        count, size = len(self.train), processes.size()
        bounds = [count * number // size for number in range(size + 1)]
        own, first = shuffled(count, key), bounds[processes.rank()]
        for start in range(0, count, self.batch_size):
            batch = np.empty(min(self.batch_size, count - start), np.int64)
            for number in range(size):
                begin, end = (min(max(bound - start, 0), len(batch)) for bound in bounds[number : number + 2])
                if begin == end:
                    continue
                part = batch[begin:end]
                if number == processes.rank():
                    part[:] = own[start + begin - first : start + end - first]
                dist.broadcast(torch.from_numpy(part), number)
            yield batch


def shuffled(count: int, key: np.uint64) -> np.ndarray:
    """This process's range of the shuffle of 0 .. count - 1, which is that of ``l2q.data.sampling``."""
    rank, size = processes.rank(), processes.size()
    bounds = np.array([count * number // size for number in range(size + 1)])
    first = int(bounds[rank])
    order = np.arange(first, bounds[rank + 1])
    for worker in range(size - 1, rank - 1, -1):
        for end in range(bounds[worker + 1], bounds[worker], -BLOCK):
            start = max(end - BLOCK, int(bounds[worker]))
            targets = _targets(start, end, key)
            elsewhere = np.unique(targets[targets < start])
            cuts = np.searchsorted(elsewhere, bounds)
            own = elsewhere[cuts[rank] : cuts[rank + 1]] - first
            if rank < worker:
                if len(own):
                    values = torch.from_numpy(order[own])
                    dist.send(values, worker)
                    dist.recv(values, worker)
                    order[own] = values.numpy()
                continue
            values = torch.empty(len(elsewhere), dtype=torch.int64)
            parts = [(number, values[cuts[number] : cuts[number + 1]]) for number in range(worker)]
            for number, part in parts:
                if len(part):
                    dist.recv(part, number)
            known = values.numpy()
            known[cuts[rank] :] = order[own]
            _swap(order[start - first : end - first], start, targets, elsewhere, known)
            order[own] = known[cuts[rank] :]
            for number, part in parts:
                if len(part):
                    dist.send(part, number)
    return order


@compiling.njit(cache=True)
def _targets(start, end, key):
    found = np.empty(end - start, np.int64)
    for place in range(start, end):
        found[place - start] = below(place + 1, key, place)
    return found


@compiling.njit(cache=True)
def _swap(block, start, targets, elsewhere, values):
    """The steps of the places ``block``, the first of which is ``start``, the last one first. ``values`` are in the
    places ``elsewhere``, which ascend."""
    for place in range(len(block) - 1, -1, -1):
        target = targets[place] - start
        if target >= 0:
            block[place], block[target] = block[target], block[place]
        else:
            other = np.searchsorted(elsewhere, targets[place])
            block[place], values[other] = values[other], block[place]


@compiling.njit(cache=True)
def _draw(pairs, users, own, starts, indptr, indices, num_users, num_items, keys, batch):
    """Of the own users' pairs the item, and a negative of every key."""
    for place in range(len(pairs)):
        user = users[place]
        if not own[0] <= user < own[1]:
            continue
        start = indptr[user] - indptr[own[0]]
        end = indptr[user + 1] - indptr[own[0]]
        batch[0, place] = indices[start + pairs[place] - starts[user]] - num_users
        for number in range(len(keys)):
            drawn = below(num_items - (end - start), keys[number], pairs[place])
            batch[1 + number, place] = missing(indices, start, end, drawn, num_users)
