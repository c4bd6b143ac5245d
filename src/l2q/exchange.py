"""Arrays that processes send each other while they work together (``l2q.processes``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from l2q import processes


def exchanged(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``parts[n]`` goes to process n. What comes from every process for this one, by their numbers. All parts are
    (rows,) arrays of one type."""
    if not processes.are_together():
        return list(parts)
    import torch
    import torch.distributed as dist

    kind = parts[0].dtype
    sizes = [part.nbytes for part in parts]
    coming = [each[processes.rank()] for each in processes.everyone(sizes)]
    found = np.empty(sum(coming) // kind.itemsize, kind)
    out, own = (torch.from_numpy(array.view(np.uint8)) for array in (found, np.concatenate(parts)))
    with processes.lost():
        dist.all_to_all_single(out, own, coming, sizes)
    return np.split(found, np.cumsum(coming)[:-1] // kind.itemsize)


def passed(
    parts: Callable[[int], np.ndarray], room: Callable[[int], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """``parts(n)`` goes to process n; what process n sends comes into ``room(n)``, contiguous memory of its type and
    shape. Gives every number with that memory, as soon as it is filled. One part is on its way at a time."""
    import torch
    import torch.distributed as dist

    number, count = processes.place()
    for step in range(count):
        to, source = (number + step) % count, (number - step) % count
        going, coming = np.ascontiguousarray(parts(to)), room(source)
        if step == 0:
            coming[...] = going
        else:
            out, into = (torch.from_numpy(array.reshape(-1).view(np.uint8)) for array in (going, coming))
            with processes.lost():
                sending = dist.isend(out, to) if len(out) else None
                if len(into):
                    dist.recv(into, source)
                if sending is not None:
                    sending.wait()
        yield source, coming


def joined(part: np.ndarray) -> np.ndarray:
    """The rows of all processes, one behind the other, in each of them: arrays of one type, (rows, ...)."""
    if not processes.are_together():
        return part
    import torch
    import torch.distributed as dist

    ends = np.cumsum([0, *processes.everyone(len(part))])
    found = np.empty((ends[-1], *part.shape[1:]), part.dtype)
    for number in range(processes.size()):
        piece = found[ends[number] : ends[number + 1]]
        if number == processes.rank():
            piece[:] = part
        if piece.size:
            with processes.lost():
                dist.broadcast(torch.from_numpy(piece.reshape(-1).view(np.uint8)), number)
    return found


def collected(chunks: Iterable[bytes], take: Callable[[bytes], object]) -> None:
    """The first process ``take``s the ``chunks`` of all, those of one after those of another, in their order. Chunks
    travel one by one. Raises in all what ``take`` raises."""
    if not processes.are_together():
        for chunk in chunks:
            take(chunk)
        return
    import torch
    import torch.distributed as dist

    wrong: list[Exception] = []

    def taken(chunk: bytes) -> None:
        try:
            if not wrong:
                take(chunk)
        except Exception as error:  # the others go on sending
            wrong.append(error)

    with processes.lost():
        length = torch.zeros(1, dtype=torch.int64)
        if processes.leads():
            for chunk in chunks:
                taken(chunk)
            for number in range(1, processes.size()):
                while dist.recv(length, number) is not None and int(length):
                    coming = torch.empty(int(length), dtype=torch.uint8)
                    dist.recv(coming, number)
                    taken(coming.numpy().tobytes())
        else:
            for chunk in filter(None, chunks):
                dist.send(length.fill_(len(chunk)), 0)
                dist.send(torch.frombuffer(bytearray(chunk), dtype=torch.uint8), 0)
            dist.send(length.fill_(0), 0)

    def end() -> None:
        if wrong:
            raise wrong[0]

    processes.agreed(end)
