"""Dashboards: every panel is of keys that runs log, the specification is W&B's, and it is sent as it is shown."""

import json

import pytest
from runs import SMALL, composed, table

from l2q import dashboards
from l2q.cli import main
from l2q.dashboards import Panel, build, logged_keys, sections, unlogged
from l2q.errors import L2QError
from l2q.learning.run import Run

ws = pytest.importorskip("wandb_workspaces.workspaces")


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> dict[str, set[str]]:
    """The keys of a fresh offline run of layer-wise codes, and of one of fitted codes, which have a teacher; Recall@20
    decides in both."""
    folder = tmp_path_factory.mktemp("dashboards")
    # 90 items, so that the cut-off that decides is 20
    more = "".join(f"more{n},i{item}\n" for n in range(30) for item in range(n % 45, 90, 1 + n % 7))
    words = [*table(folder / "events.csv", more=more), "eval.ks=[10,20,50]", "logger.offline=true"]
    fitted = ["model.bits=16", "model.descent.intruder_rounds=2", "model.embeddings.steps=30"]
    runs = {
        "l2q_anl": [*SMALL, "annealing=linear", "protocol.every_n_epochs=1"],
        "l2q_plus": [*fitted, "test=true"],
    }
    for model, of_model in runs.items():
        Run(composed(f"model={model}", *words, *of_model), folder / model)()
    return {model: logged_keys(folder / model) for model in runs} | {"folder": folder}  # type: ignore[dict-item]


def test_every_panel_is_of_keys_that_a_fresh_run_logs(logged):
    """All of trained codes but what a teacher reached."""
    teacher = "summary:test/teacher/recall_20"
    assert list(unlogged(sections(), logged["l2q_anl"]).values()) == [[teacher]]
    assert teacher in logged["l2q_plus"]
    others = {
        "history:epoch",
        "summary:test/packed/recall_20",
        "config:model.name",
        "summary:val/recall_20.max",
    }
    assert others <= logged["l2q_anl"]


def test_a_key_that_no_run_logs_is_found(logged):
    wrong = {
        "Quality": [
            Panel("lines", "old", ("history:val/recall@20",), "history:epoch"),
            Panel("bars", "right", ("summary:item_bytes",)),
            Panel("parallel", "options", ("config:model.name", "config:model.colour", "summary:item_bytes")),
        ]
    }
    assert unlogged(wrong, logged["l2q_anl"]) == {
        "old": ["history:val/recall@20"],
        "options": ["config:model.colour"],
    }


def keys_of(spec: dict) -> set[str]:
    """Every key that the specification names to W&B's browser, in its own spelling."""
    found = set()
    for section in spec["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            config = panel["config"]
            found |= set(config.get("metrics", ())) | {config.get("targetKey")}
            found |= {config.get("xAxis"), config.get("yAxis")}
            found |= {column["accessor"] for column in config.get("columns", ())}
    return found - {None}


def test_the_specification_has_all_panels_and_reads_back():
    built = build("someone", "l2q", sections())
    view = built._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    assert [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]] == list(sections())
    again = ws.Workspace._from_model(view)
    assert [[panel.__class__ for panel in section.panels] for section in again.sections] == [
        [panel.__class__ for panel in section.panels] for section in built.sections
    ]
    spelled = {
        "history": lambda name: name,
        "summary": lambda name: name,
        "config": lambda name: "config:" + ".".join([name.split(".")[0], "value", *name.split(".")[1:]]),
    }
    shown = {key.removeprefix("summary:") for key in keys_of(spec)}
    for section in sections().values():
        for panel in section:
            for key in panel.all_keys:
                place, _, name = key.partition(":")
                assert spelled[place](name) in shown, (panel.title, key, sorted(shown))


def test_another_cutoff_and_other_options():
    panels = sections(10, ["model.bits"])
    keys = {key for section in panels.values() for panel in section for key in panel.all_keys}
    assert {"history:val/recall_10", "summary:test/tail_recall_10", "config:model.bits"} <= keys
    assert not [key for key in keys if key.endswith("_20") or key == "config:seed"]


def test_a_dry_run_prints_every_key_and_marks_what_is_missing(logged, capsys):
    folder = str(logged["folder"] / "l2q_anl")
    assert main(["dashboard", "--entity", "someone", "--project", "p", "--dry-run", "--run", folder]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("L2Q, a workspace of someone/p\n")
    for section in sections().values():
        for panel in section:
            assert panel.title in shown
            assert all(key in shown for key in panel.all_keys)
    assert [line.strip() for line in shown.splitlines() if line.endswith(" !")] == [
        "summary:test/teacher/recall_20 !"
    ]
    assert main(["dashboard", "--dry-run"]) == 0
    assert " !" not in capsys.readouterr().out


def test_what_is_sent_is_what_was_built(monkeypatch, capsys):
    """Up to W&B's server, which is stood in for."""
    import wandb
    import wandb_workspaces.workspaces.interface as interface

    sent = []

    def upsert(view):
        sent.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setattr(interface.internal, "upsert_view2", upsert)
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.ai")
    monkeypatch.setattr(wandb, "Api", lambda: None)
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    assert main(["dashboard", "--entity", "someone", "--project", "p", "--name", "mine"]) == 0
    assert capsys.readouterr().out == "https://wandb.ai/someone/p?nw=abc\n"
    (view,) = sent
    assert (view.entity, view.project, view.display_name) == ("someone", "p", "mine")
    assert keys_of(view.spec.model_dump(by_alias=True)) == keys_of(
        build("someone", "p", sections())._to_model().spec.model_dump(by_alias=True)
    )


def test_what_is_missing_is_said_in_a_line(monkeypatch, tmp_path, capsys):
    import wandb

    assert main(["dashboard"]) == 2
    assert "--entity is not given" in capsys.readouterr().err
    with pytest.raises(L2QError, match="has no file of a W&B run"):
        logged_keys(tmp_path)
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    assert main(["dashboard", "--entity", "someone"]) == 2
    assert capsys.readouterr().err.count("wandb login") == 1
    monkeypatch.setattr(wandb, "login", lambda prompt: True)

    def refuse(self):
        raise wandb.errors.CommError("no such\nproject")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    with pytest.raises(L2QError, match=r"does not take it \(no such project\)"):
        dashboards.send(build("someone", "p", sections()))
