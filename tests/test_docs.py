"""What docs/quantize.md says runs as it stands there, on fewer bits."""

import importlib.util
import re
import shlex
import subprocess
import sys
from glob import glob
from pathlib import Path

import pytest

from l2q.cli import main
from l2q.data.sources import load_dataset
from l2q.retrieval.storage import load_index

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quantize.md"


def test_quantize_page(tmp_path, monkeypatch, capsys):
    for library in ("implicit", "faiss"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} absent")
    blocks = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "bash", "bash", "python", "bash"]
    monkeypatch.chdir(tmp_path)
    # implicit and faiss bring an OpenMP runtime each: they get a process of their own
    subprocess.run([sys.executable, "-c", blocks[0][1]], check=True, capture_output=True)
    printed = []
    commands, (python,) = (
        [block for found, block in blocks[1:] if found == language] for language in ("bash", "python")
    )
    for command in "".join(commands).replace("\\\n", " ").splitlines():
        words = shlex.split(command.replace("--bits 768", "--bits 96"), comments=True)  # a fit of seconds
        if words[1] == "train.py":  # one epoch of a few columns
            short = ["trainer.max_epochs=1", "model.embedding_dim=8", "logger=none"]
            subprocess.run([sys.executable, ROOT / "train.py", *words[2:], *short], check=True)
            continue
        assert words[:3] == ["python", "-m", "l2q"]
        words = [word.replace("RUN", "".join(glob("outputs/debian/lightgcn/*"))) for word in words]
        if words[3] == "export":
            subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
        else:
            assert main(words[3:]) == 0, command
        printed.append(capsys.readouterr().out)

    dataset, stored = load_dataset("debian"), load_index(tmp_path / "index")
    assert stored.dims == (96,)
    assert stored.exclude.fingerprint == dataset.train.fingerprint
    assert (stored.user_names, stored.item_names) == (
        dataset.user_names.tolist(),
        dataset.item_names.tolist(),
    )
    assert stored.manifest["metrics"]["float/recall_20"] > 0.3
    assert f"{stored.manifest['metrics']['float/recall_20']:.4f}" in printed[0]
    exec(python, shown := {})
    assert "libav" in capsys.readouterr().out
    assert shown["items"].shape == (1, 10)
    assert not {3, 17} & set(shown["items"][0])
    ffmpeg = stored.user_names.index("ffmpeg")
    for row in stored.search([ffmpeg], 5, stored.exclude)[1][0]:
        assert stored.item_names[row] in printed[1]
    assert "libavformat59" in printed[3]
    assert (tmp_path / "top20.parquet").stat().st_size
    assert (tmp_path / "items.faiss").stat().st_size
    codes = load_index(tmp_path / "codes")
    assert (codes.dims, codes.exclude.fingerprint) == ((96,), dataset.train.fingerprint)
