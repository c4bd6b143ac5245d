"""``python -m l2q dashboard``: a W&B workspace whose panels tell what runs of this project tell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from l2q.errors import L2QError

if TYPE_CHECKING:
    from l2q.dashboards import Panel

PLACE = 8
HELP = "panels for a project in W&B: quality, annealing, sizes, codes, time, sweeps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entity", help="a user or a team of W&B")
    parser.add_argument("--project", default="l2q", help="a project that runs were sent to (l2q)")
    parser.add_argument("--name", default="L2Q", help="of the workspace (L2Q)")
    parser.add_argument("-k", type=int, default=20, help="cut-off of the metrics (20)")
    parser.add_argument("--swept", nargs="+", metavar="OPTION", help="columns of the sweep's plot")
    parser.add_argument(
        "--run",
        nargs="+",
        dest="runs",
        metavar="RUN",
        help="folders of runs that should have logged the keys",
    )
    parser.add_argument("--dry-run", action="store_true", help="build and print it; nothing is sent")


def run(
    entity: str | None,
    project: str,
    name: str,
    k: int,
    swept: list[str] | None,
    runs: list[str] | None,
    dry_run: bool,
) -> None:
    """Builds the workspace, and sends it or prints its panels. With folders of runs, keys that none of them logged
    are marked."""
    from l2q import dashboards

    if entity is None and not dry_run:
        raise L2QError("--entity is not given: name a user or a team of W&B, or look with --dry-run")
    panels = dashboards.sections(k, swept or dashboards.SWEPT)
    logged = [dashboards.logged_keys(folder) for folder in runs or []]
    missing = dashboards.unlogged(panels, set().union(*logged)) if logged else {}
    workspace = dashboards.build(entity or "ENTITY", project, panels, name)
    if not dry_run:
        print(dashboards.send(workspace))
        return
    print(f"{name}, a workspace of {workspace.entity}/{project}")
    for line in _lines(panels, missing):
        print(line)
    if missing:
        print(f"\n! no run that was named logged it; {len(missing)} panels have such a key")


def _lines(panels: dict[str, list[Panel]], missing: dict[str, list[str]]) -> Iterator[str]:
    for section, of_section in panels.items():
        yield f"\n{section}"
        for panel in of_section:
            lacks = missing.get(panel.title, ())
            marked = {key: f"{key} !" if key in lacks else key for key in panel.all_keys}
            over = "" if panel.x is None else f"  over {marked[panel.x]}"
            yield f"  {panel.title} ({panel.kind})"
            yield from (f"    {marked[key]}{over}" for key in panel.keys)
