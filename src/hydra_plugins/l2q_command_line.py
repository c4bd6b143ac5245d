"""What Hydra finds wrong with a command line, in one line of ours: the option, the names nearest to it, and where all
of them can be seen."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2q import settings
from l2q.errors import L2QError
from l2q.learning import trainer
from l2q.learning.leftovers import Before
from l2q.sweeps.sweep import SWEEP, Refused, refused

SEE = "`python train.py --help` lists them all"
NEAREST, FEW = 3, 8
FULL = "HYDRA_FULL_ERROR"


class Remember(Callback):
    """Looks at a run's folder before Hydra makes it, so that a run that is refused leaves nothing."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        SWEEP.before = Before.of(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        SWEEP.before = Before.of(Path(config.hydra.sweep.dir))


@contextmanager
def one_line(words: Sequence[str]) -> Iterator[None]:
    """Within it, what Hydra refuses of these ``words`` becomes ``Refused``, and a bug keeps its own traceback. Who sets
    HYDRA_FULL_ERROR=1 gets Hydra's own."""
    own = FULL in os.environ
    os.environ.setdefault(FULL, "1")  # else Hydra prints, and exits
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if own or (isinstance(error, ValueError) and not _of_hydra(error)):
            raise
        raise Refused(L2QError(why(error, words))) from None
    finally:
        if not own:
            del os.environ[FULL]


def _of_hydra(error: BaseException) -> bool:
    """Whether it was raised in Hydra's code about flags, no bug of ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("hydra.")


def why(error: Exception, words: Sequence[str]) -> str:
    """What is wrong and what to do, in one line."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} cannot be read ({said[0]}); give NAME=VALUE, and a value with signs such as "
            "commas or brackets in quotes twice: NAME='\"a, b\"'"
        )
    if isinstance(error, MissingConfigException):
        return _no_choice(error, said[0])
    if named := re.match(r"(Could not \w+).*?'~?([^'=]+)(?:=[^']*)?'", said[0]):
        what, key = named.groups()
        if what == "Could not append":
            return f"+{key}: it has a value already; leave the + out to replace it"
        word = next((word for word in words if _key(word) == key), key)
        return _no_option(word, key, [other for other in words if other != word])
    if said[0].startswith("Ambiguous value") or "requires --multirun" in said[0]:
        word = said[0].split("'")[1]
        name, _, value = word.partition("=")
        return f"{word}: -m runs every value: python train.py -m {word}; one list of them is {name}=[{value}]"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {said[0]}"
    cause = str(error.__cause__).splitlines()[0] if error.__cause__ else ""
    return " ".join(filter(None, [said[0].rstrip(":"), cause and f"({cause})"]))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _no_choice(error: MissingConfigException, said: str) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return f"{said.rstrip('.')}; leave --config-name out"
    options = list(error.options or settings.choices(group))
    begin = [option for option in options if option.startswith(name)]
    near = list(dict.fromkeys([*get_close_matches(name, options, NEAREST), *begin]))[:NEAREST]
    near = near or (options if len(options) <= FEW else [])
    return f"{group}={name}: there is no such choice; {_meant(near)}{SEE}"


def _no_option(word: str, key: str, others: Sequence[str]) -> str:
    config = composed(others)
    groups = [path.name for path in settings.folder().iterdir() if path.is_dir()]
    if key in groups:
        return f"{word}: model={config.model.name} goes without a choice of {key}; leave it out"
    plain: Any = OmegaConf.to_container(config, resolve=False)
    if not key.startswith("hydra"):
        plain.pop("hydra")
    known = {*_names(plain), *groups}
    place, _, last = key.rpartition(".")
    values = OmegaConf.select(config, place) if place else None
    if place == "trainer" and last in trainer.REFUSED:
        return f"{word}: {trainer.REFUSED[last].instead}"
    if isinstance(values, DictConfig) and last in _taken(values):
        return f"{word}: it has no value to replace; add it with a +: +{word.lstrip('+~')}"
    return f"{word}: there is no such option; {_meant(nearest(key, sorted(known)))}{SEE}"


def _taken(values: DictConfig) -> set[str]:
    """What the class of a group takes."""
    target = OmegaConf.to_container(values, resolve=False).get("_target_")  # type: ignore[union-attr]
    return set(inspect.signature(settings.locate(target)).parameters) if target else set()


def nearest(key: str, known: Sequence[str]) -> list[str]:
    """The names that may be meant: those in the same place that are spelled alike; where there are none, those whose
    last word is the same, then those that are spelled alike anywhere."""
    place, _, last = key.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == place}
    if near := get_close_matches(last, beside, NEAREST, cutoff=0.7):
        return [beside[name] for name in near]
    same = [name for name in known if name.rpartition(".")[2] == last]
    alike = get_close_matches(key, known, NEAREST, cutoff=0.7)
    lasts = get_close_matches(last, {name.rpartition(".")[2] for name in known}, NEAREST, cutoff=0.75)
    inner = [name for word in lasts for name in known if name.rpartition(".")[2] == word]
    return list(dict.fromkeys([*same, *alike, *inner]))[:NEAREST]


def _meant(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}? " if near else ""


def _names(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in values.items():
        if str(key) != "_target_":
            yield f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{before}{key}.")


def composed(words: Sequence[str]) -> DictConfig:
    """The configuration of these words, as far as they are right; of a sweep's values the first."""
    right = list(_right(words))
    choices = [word for word in right if (settings.folder() / _key(word)).is_dir()]
    with initialize_config_dir(str(settings.folder()), version_base="1.3"):
        for tried in (right, choices):
            try:
                return compose("config", tried, return_hydra_config=True)
            except (HydraException, OmegaConfBaseException):
                continue
        return compose("config", return_hydra_config=True)


def _right(words: Sequence[str]) -> Iterator[str]:
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException:  # a flag, or its value
            continue
        if override.is_sweep_override():
            yield f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"
        else:
            yield word


def composed_strictly(words: Sequence[str]) -> DictConfig:
    """As Hydra composes it for a single run; what is wrong is ``Refused``."""
    with (
        refused(),
        one_line(words),
        initialize_config_dir(str(settings.folder()), version_base="1.3"),
    ):
        return compose("config", [word for word in words if word[0] != "-"], return_hydra_config=True)
