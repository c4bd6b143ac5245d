"""A fitted or trained index from Python, without Hydra, a folder or a tracker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2q import settings
from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.fitted import Fitted
from l2q.fitted import fit as fit_model
from l2q.interactions import Interactions
from l2q.learning import memory
from l2q.learning.configuration import check_model, hashed
from l2q.learning.run import closed_form, expected
from l2q.learning.training import Training
from l2q.retrieval.named import Index
from l2q.retrieval.storage import load_index

log = logging.getLogger("l2q")


def fit(
    train: Interactions,
    model: str = "l2q_plus",
    /,
    *,
    bits: int | None = None,
    seed: int | None = None,
    protocol: str = "final",
    new_users: bool | None = None,
    start: Index | str | Path | None = None,
    **changes: Any,
) -> Index:
    """An index of all users and items of ``train``, by any model of ``conf/model``.

    ``bits`` are those of a row, without its scales; a model of several layers shares them out, and float models have
    none. ``protocol`` "final" takes all of train and, of a model that is trained, all its epochs; "holdout" keeps a
    tenth of train back and takes the epoch that is best on it. ``new_users`` keeps what codes of later users are fitted
    to (``l2q_plus``). ``start`` is an index of earlier events, or its folder: ``l2q_plus`` goes on from its codes, by
    names, in a fraction of the time. ``changes`` are settings as ``conf/`` has them, groups
    as mappings. What is None or not given is as in ``conf/``.

    The same settings give the same index as ``train.py``, where the train part is the same. Raises L2QError for an
    unknown model or setting, and for a value out of range.

        index = l2q.fit(train, "l2q_plus", bits=256)
        index = l2q.fit(train, "l2q_anl", epochs=20, learning_rate=0.01, model={"num_layers": 3})
    """
    memory.prepare()
    if not isinstance(train, Interactions):
        raise L2QError(
            f"train is {type(train).__name__}; read_events makes Interactions of a table or a frame"
        )
    if not len(train):
        raise L2QError("train has no interactions: there is nothing to learn")
    chosen = {group: changes.pop(group) for group in settings.GROUPS if isinstance(changes.get(group), str)}
    groups = {"model": model, "protocol": protocol} | chosen
    given = {"seed": seed, "new_users": new_users}
    changes |= {name: value for name, value in given.items() if value is not None}
    config = settings.compose(changes, **groups)
    config["eval"]["ks"] = []  # the deciding cut-off alone is measured
    if bits is not None:
        _share_out(config, bits)
    check_model(config)
    fitted = closed_form(config)
    if fitted is not None:
        earlier = load_index(start) if isinstance(start, str | Path) else start
        if (line := expected(train, config | {"start": earlier is not None})) is not None:
            log.info(line)
        return _index(fit_model(fitted, train, config["seed"], earlier), train, config)
    if start is not None:
        raise L2QError(f"start: model={config['model']['name']} is trained; leave start out")
    held = config["protocol"]
    rest, val = train, None
    if held["name"] == "holdout":
        rest, val = split(train, held["split"], fraction=held["fraction"], seed=held["split_seed"])
        if not len(val):
            raise L2QError("no user has enough items for a validation part; use protocol='final'")
    return _index(Training(config, rest, val, None)(), train, config)


def _index(found: Any, train: Interactions, config: Mapping[str, Any]) -> Index:
    side = found.filter_side if isinstance(found, Fitted) and config["new_users"] else None
    return Index.of(found.representations, train, config_hash=hashed(config), filter_side=side)


def _share_out(config: dict[str, Any], bits: int) -> None:
    """``bits`` of a row as the model's own option."""
    model, name = config["model"], config["model"]["name"]
    if "bits" in model:
        model["bits"] = bits
        return
    if "Identity" in model.get("quantizer", {}).get("_target_", "Identity"):
        width = "dim" if "dim" in model else "embedding_dim"
        advice = f"; model={{{width!r}: 64}} sets its width" if width in model else ""
        raise L2QError(f"bits={bits}: {name} keeps floats{advice}")
    segments = 1 if model["combination"] == "mean" else model["num_layers"] + 1
    if not isinstance(bits, int) or bits < segments or bits % segments:
        raise L2QError(
            f"bits={bits}: {name} shares them out among {segments} layers; give a multiple of {segments}"
        )
    model["embedding_dim"] = bits // segments
