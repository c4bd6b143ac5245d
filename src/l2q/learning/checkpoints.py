"""A checkpoint's file: written beside its place and put there in one step, and held to its content when it is read.

The file is what ``torch.save`` writes, read without running code from it. Torch leaves the checksums of the archive
unread, so a flipped bit in a weight would train on unseen. Therefore the content carries a checksum of its own: the
SHA-256 of all keys, values, types and shapes, in order, and of the tensors' bytes.

Several processes that have columns of a table each write a part beside it, ``NAME.STEP-RANKofSIZE.part``. The
checkpoint names its parts with their checksums, and is written last: what was there stays whole until then. Who reads
it has the whole tensors, or a share of their columns, whatever the number of parts.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO
from torch import Tensor

from l2q.errors import L2QError
from l2q.files import replaced_file, writing

VERSION = 2
"""Of the format. Checkpoints of version 1 have no checksum; the first of them do not say their version either."""
VERSION_KEY, CHECKSUM, PARTS = "l2q_version", "l2q_sha256", "l2q_parts"
PLACE = "l2q tensor "  # and a number: in the place of a tensor that lies in parts
Share = tuple[int, int]
"""Number r of p: the columns from r d / p to (r + 1) d / p."""


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a checkpoint holds, but for the checksum itself; the same before it is written and after it is
    read.

    >>> checksum({"epoch": 3}) == checksum({"epoch": 3, CHECKSUM: "of before"})
    True
    """
    digest = hashlib.sha256()
    _add(digest, {key: value for key, value in content.items() if key != CHECKSUM})
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    """One value: its kind, its length, its bytes, so that no two contents have the same sequence."""
    if isinstance(value, Tensor):
        array = value.detach().cpu().contiguous()
        _add(digest, [str(array.dtype), *array.shape])
        digest.update(array.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(struct.pack("<cq", b"m", len(value)))
        for key, inner in value.items():
            _add(digest, key)
            _add(digest, inner)
    elif isinstance(value, list | tuple):
        digest.update(struct.pack("<cq", b"l", len(value)))
        for inner in value:
            _add(digest, inner)
    elif isinstance(value, float):
        digest.update(struct.pack("<cd", b"f", value))
    else:
        said = repr(value).encode(errors="surrogatepass")
        digest.update(struct.pack("<cq", b"r", len(said)) + said)


def size(content: Any) -> int:
    """Bytes of the tensors in it, which are nearly all of its file."""
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(size, content.values()))
    return sum(map(size, content)) if isinstance(content, list | tuple) else 0


def save(content: dict[str, Any], path: Path) -> str:
    """Writes ``path``; what was there is lost only when the new file is complete. Returns its checksum. Raises L2QError
    where it cannot be written."""
    content = _signed(content)
    with writing(path, size(content)), replaced_file(path) as fresh, fresh.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch cannot close its archive, and hides why
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    return content[CHECKSUM]


def _signed(content: dict[str, Any]) -> dict[str, Any]:
    content = content | {VERSION_KEY: VERSION}
    return content | {CHECKSUM: checksum(content)}


def load(path: Path, kept: bytes | None = None, share: Share | None = (0, 1)) -> dict[str, Any]:
    """What ``path`` holds, or its bytes where they are ``kept`` in memory, on the CPU. Of what lies in parts a
    ``share`` of the columns is read; None: nothing. Raises L2QError where it is no checkpoint of this project or
    version, or is damaged. Warns where it has no checksum to say so."""
    content = _read(path, kept)
    if PARTS in content and share is not None:
        return _joined(content, path, share)
    return content


def remove(path: Path) -> None:
    """The file with its parts."""
    path.unlink(missing_ok=True)
    remove_parts(path)


def remove_parts(path: Path, but: Sequence[str] = ()) -> None:
    """The parts of a checkpoint, but for those of these names."""
    for part in path.parent.glob(f"{path.stem}.*.part"):
        if part.name not in but:
            part.unlink(missing_ok=True)


def split(
    content: dict[str, Any], of_tensors: Callable[..., dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, tuple[Tensor, int]]]:
    """The content without the tensors that processes have columns of, and these by number, with the dimension of the
    columns. ``of_tensors(content, change)`` gives the content with ``change(tensor, dim)`` for each."""
    found: dict[str, tuple[Tensor, int]] = {}

    def taken(tensor: Tensor, dim: int) -> str:
        number = str(len(found))
        found[number] = tensor.detach().cpu(), dim
        return PLACE + number

    return of_tensors(content, taken), found


def _joined(content: dict[str, Any], path: Path, share: Share) -> dict[str, Any]:
    said = content[PARTS]
    number, size = share
    count = len(said["files"])
    tensors: dict[str, list[Tensor]] = {name: [] for name in said["dims"]}
    for place, (name, sha256) in enumerate(said["files"]):
        if (place + 1) * size <= number * count or place * size >= (number + 1) * count:
            continue  # no column of the share is there
        part_path = path.parent / name
        if not part_path.is_file():
            raise L2QError(f"ckpt_path={path}: its part {name} is missing; put it beside it")
        part = _read(part_path)
        if part[CHECKSUM] != sha256:
            raise L2QError(f"ckpt_path={path}: its part {name} is of another checkpoint; take another one")
        for key, dim in said["dims"].items():
            tensor = part["tensors"][key]
            width = tensor.shape[dim]  # the share in this part, in columns of the whole
            first = max(number * width * count // size, place * width)
            last = min((number + 1) * width * count // size, (place + 1) * width)
            tensors[key].append(tensor.narrow(dim, first - place * width, last - first))
    whole = {key: torch.cat(tensors[key], dim) for key, dim in said["dims"].items()}
    return {key: _filled(value, whole) for key, value in content.items() if key != PARTS}


def _filled(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """With tensors where their names are."""
    if isinstance(value, str) and value.startswith(PLACE):
        return tensors[value.removeprefix(PLACE)]
    if isinstance(value, Mapping):
        return type(value)((key, _filled(inner, tensors)) for key, inner in value.items())  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        return type(value)(_filled(inner, tensors) for inner in value)
    return value


def _read(path: Path, kept: bytes | None = None) -> dict[str, Any]:
    try:
        content = torch.load(
            path if kept is None else io.BytesIO(kept), map_location="cpu", weights_only=True
        )
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise L2QError(f"ckpt_path={path} cannot be read as a checkpoint: {said[:200]}") from error
    if not isinstance(content, dict) or "l2q" not in content:
        raise L2QError(f"ckpt_path: the file is no checkpoint of this project: {path}")
    found, version = content.get(CHECKSUM), content.get(VERSION_KEY, 1)
    if version not in (1, VERSION):
        raise L2QError(
            f"ckpt_path: the checkpoint has format version {version}, this l2q reads version {VERSION}; go on with "
            f"the l2q that wrote it, or train anew: {path}"
        )
    if found is not None or version == VERSION:
        if found != checksum(content):
            raise L2QError(
                f"ckpt_path={path}: its checksum does not match; it is damaged, take another checkpoint"
            )
    else:
        warnings.warn(
            f"{path} was written before checkpoints had checksums: damage would go unseen", stacklevel=3
        )
    return content


class CheckpointFiles(CheckpointIO):
    """How Lightning writes and reads checkpoints: as above. ``in_memory``: no file is written, and what is kept is the
    best epoch's weights alone, since a fit without a folder is not gone on with."""

    def __init__(self, in_memory: bool = False, share: Share | None = (0, 1)) -> None:
        self.in_memory, self.share = in_memory, share
        self.kept: dict[str, bytes] = {}

    def read(self, path: Path) -> dict[str, Any]:
        return load(path, self.kept.get(str(path)), self.share)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        if self.in_memory:
            if path.stem == "best":
                unneeded = ("optimizer_states", "lr_schedulers", "callbacks", "loops")
                content = {key: value for key, value in checkpoint.items() if key not in unneeded}
                torch.save(_signed(content), file := io.BytesIO())
                self.kept[str(path)] = file.getvalue()
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return self.read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        self.kept.pop(str(path), None)
        remove(Path(path))
