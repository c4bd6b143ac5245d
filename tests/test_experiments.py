"""Every row of the results table has its experiment file, whose header carries the stored figures."""

import statistics
from pathlib import Path

from hydra import compose, initialize_config_dir

from l2q.report import read, spread

ROOT = Path(__file__).parents[1]


def test_every_row_has_an_experiment_with_its_figures():
    rows: dict[tuple, list[dict]] = {}
    for run in read(ROOT / "outputs" / "results"):
        row = run["dataset"], run["model"], run["embedding_dim"], run["protocol"]
        rows.setdefault(row, []).append(run)
    wrong, found = [], set()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
            config = compose("config", [f"experiment={path.stem}"])
            row = (
                config.dataset.name,
                config.model.name,
                config.model.embedding_dim,
                config.protocol.name,
            )
            assert row not in found, f"{path.name} stands for the same row as another file"
            found.add(row)
            group = rows.get(row)
            if group is None:
                wrong.append(f"{path.name}: no stored result of {row}")
                continue
            recall, ndcg = (
                spread([run[f"test/packed/{key}_20"] for run in group]) for key in ("recall", "ndcg")
            )
            seconds = statistics.mean(run["fit_seconds"] + run["start_seconds"] for run in group)
            expected = [
                f"# test Recall@20 {recall}, NDCG@20 {ndcg}; {round(8 * group[0]['item_bytes']):,} bits per item",
                f"# {seconds:.0f} s of fitting; {group[0]['hardware']}",
            ]
            lines = path.read_text().splitlines()
            if not lines[1].startswith("# python train.py") or f"experiment={path.stem}" not in lines[1]:
                wrong.append(f"{path.name}: the second line is not its command")
            if lines[2:4] != expected:
                wrong.append(f"{path.name}: expected lines 3 and 4\n" + "\n".join(expected))
    wrong += [f"no experiment for {row}" for row in rows if row not in found]
    assert not wrong, "\n".join(wrong)
