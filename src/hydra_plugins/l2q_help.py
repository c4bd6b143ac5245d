"""``python train.py --help``: groups with their choices, and every option of the configuration that the other words
come to, each with its value and what the comments of ``conf/`` say of it."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydra_plugins.l2q_command_line import composed_strictly
from l2q import settings
from l2q.sweeps.search_space import spelled

WIDTH, SHORT = 80, 12  # columns at most; choices of a group that are listed whole
USAGE = """\
python train.py [NAME=VALUE ...]      one run: train or fit, measure, export
python train.py -m [NAME=A,B ...]     a sweep: a run for each combination

  python train.py model=l2q_plus dataset=table dataset.dir=events.csv
  python train.py -m model=lightgcn,l2q,l2q_anl seed=0,1 sweep=first"""
FLAGS = {
    "-m, --multirun": "a sweep",
    "--cfg job": "print the whole configuration, and run nothing",
    "--cfg job -p model": "a group of it",
    "--info defaults": "which files of conf/ it comes from",
    "--hydra-help": "the other flags, which are Hydra's",
}
ORDER = ("model", "dataset", "initialization", "objective", "annealing", "protocol", "trainer", "logger")
OF_RUNS = "search"  # a group without files of its own name
HIDDEN = ("_target_", "name", "counts", "fingerprints", "md5", "url")


def text(words: Sequence[str]) -> str:
    """The help, for the configuration that ``words`` come to; what is wrong with them is ``Refused``."""
    words = [word for word in words if word not in ("-h", "--help", "-m", "--multirun")]
    config = composed_strictly(words)
    choices = {str(key): value for key, value in config.hydra.runtime.choices.items() if "hydra/" not in key}
    choices = {key: choices.get(key) for key in dict.fromkeys([*ORDER, *choices])}
    width = min(shutil.get_terminal_size().columns, WIDTH)
    parts = [USAGE, _groups(choices, width)]
    comments = _comments("config", "")
    own = [key for key in config if key == "eval" or not OmegaConf.is_dict(config._get_node(key))]
    parts.append(_section("Options", _lines(config, comments, "", own), width))
    for group, chosen in choices.items():
        values = config.get(group)
        if isinstance(values, DictConfig) and values:
            comments |= _comments(str(chosen), group)
            title = f"Options of {group}={chosen}"
            parts.append(_section(title, _lines(config, comments, "", [group]), width))
    if OF_RUNS in config:
        comments |= _comments(str(choices.get("hparams_search")), "hparams_search")
        parts.append(_section("Options of the search", _lines(config, comments, "", [OF_RUNS]), width))
    parts.append(_section("Flags", FLAGS.items(), width))
    parts.append(textwrap.fill("Every option: docs/reference/options.md. An option that is not shown here is "
                               "added with a +, as +trainer.max_time=00:12:00:00.", width))  # fmt: skip
    return "\n\n".join(filter(None, parts))


def _groups(choices: Mapping[str, Any], width: int) -> str:
    """Every group of ``conf/``, what it is, and its choices; the one that is taken is in brackets."""
    about = _comments("config", "", defaults=True)
    lines = []
    for group, taken in choices.items():
        names = settings.choices(group)
        if group == "recipe" or not names:
            continue
        shown = [f"[{name}]" if name == taken else name for name in names]
        if len(shown) > SHORT:
            shown = [f"[{taken}]"] * (taken is not None) + [f"{len(names)} files of conf/{group}/"]
        lines.append((group, ": ".join(filter(None, [about.get(group), ", ".join(shown)]))))
    return _section("Groups, GROUP=CHOICE; what is taken is in brackets", lines, width)


def _section(title: str, lines: Any, width: int) -> str:
    """Names and what they are, side by side where there is room."""
    left = 30
    shown = [title]
    for name, said in lines:
        name = f"  {name}"
        wrapped = textwrap.wrap(said, width - left, break_on_hyphens=False)
        if len(name) >= left and wrapped:
            shown += textwrap.wrap(name, width, subsequent_indent="    ", break_on_hyphens=False)
            name = ""
        elif len(name) > width:
            shown += textwrap.wrap(name, width, subsequent_indent="    ", break_on_hyphens=False)
            continue
        shown += [f"{'' if number else name:{left}}{line}" for number, line in enumerate(wrapped)] or [name]
    return "\n".join(line.rstrip() for line in shown) if len(shown) > 1 else ""


def _lines(
    values: DictConfig, comments: Mapping[str, str], before: str = "", keys: Sequence[Any] | None = None
) -> Iterator[tuple[str, str]]:
    """``name=value`` and what is said of it, of ``keys`` or all."""
    for key in values if keys is None else keys:
        name = f"{before}{key!s}"
        if OmegaConf.is_missing(values, key):
            yield f"{name}=", ": ".join(filter(None, ["must be given", comments.get(name)]))
            continue
        if key in HIDDEN:
            continue
        value = values[key]
        if isinstance(value, DictConfig) and value and "low" not in value:
            yield from _lines(value, comments, f"{name}.")
        else:
            plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            yield f"{name}={spelled(plain)}", comments.get(name, "")


def _comments(choice: str, group: str, defaults: bool = False) -> dict[str, str]:
    """What a file of ``conf/`` says of its options, and of those that it begins with; with ``defaults`` what it says of
    groups."""
    path = settings.folder() / group / f"{choice}.yaml"
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8").splitlines()
    found: dict[str, str] = {}
    inside = [] if lines[0].startswith("# @package _global_") or not group else [group]
    places = [(-1, inside)]
    for line in lines:
        match = re.match(r"( *)(?:- )?(?:/)?([\w ]+?)(?:: .*?|:)?(?:\s+#\s*(.*))?$", line)
        if not match or line.lstrip().startswith("#"):
            continue
        indent, key, said = len(match[1]), match[2], match[3]
        item = line.lstrip().startswith("- ")
        if item and not defaults:
            if ":" not in line and key != "_self_" and indent:  # the file that this one begins with
                found |= _comments(key, group)
            continue
        if item:
            found |= {key.removeprefix("optional "): said} if said else {}
            continue
        while places[-1][0] >= indent:
            places.pop()
        places.append((indent, [*places[-1][1], key]))
        if said and not defaults:
            found[".".join(places[-1][1])] = said
    return found
