"""A checkpoint is fetched from a hub by the library people use, against a hub of our own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.checkpoints.copies import FOLDER
from tests.conftest import ROOT
from tests.hub import COMMIT, REPO, File, Hub

CHECKPOINT = {path.name: path.read_bytes() for path in (FOLDER / "qwen2-tied").iterdir()}
UNWANTED = {
    "evil.py": b"x",
    "pytorch_model.bin": b"x",
    "original/model.safetensors": b"x",
    "README.md": b"x",
    "a.gguf": b"x",
}


@pytest.fixture
def hub():
    files = {name: File(content, lfs=name.endswith(".safetensors")) for name, content in (CHECKPOINT | UNWANTED).items()}
    with Hub(files) as hub:
        yield hub


def run(hub, tmp_path, script):
    # The library reads HF_ENDPOINT when it is imported, so it is imported in a process of its own.
    place = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    script = f"from pathlib import Path\nfrom convert.hub import fetch\nfrom convert.errors import ConvertError\n{script}"
    command = [sys.executable, "-c", script, str(tmp_path / "checkpoints")]
    return subprocess.run(command, cwd=ROOT, env=os.environ | place, capture_output=True, text=True, timeout=60)


FETCH = """
import sys
try:
    print(fetch({name!r}, Path(sys.argv[1])))
except ConvertError as error:
    print(error)
"""


def test_weights_and_data_are_fetched_and_neither_code_nor_pickles(hub, tmp_path):
    done = run(hub, tmp_path, FETCH.format(name=REPO))
    folder = tmp_path / "checkpoints" / "owner--tiny-GGUF"
    assert done.stdout == f"{folder}\n", done.stderr
    wanted = {name for name in CHECKPOINT if name.endswith((".safetensors", ".json"))}
    assert {path.name for path in folder.iterdir() if path.is_file()} == wanted
    assert (folder / "model.safetensors").read_bytes() == CHECKPOINT["model.safetensors"]
    asked = {seen.path.partition(f"/resolve/{COMMIT}/")[2] for seen in hub.seen}
    assert wanted <= asked
    assert not set(UNWANTED) & asked


def test_a_repository_that_is_not_there_is_said_in_one_sentence(hub, tmp_path):
    done = run(hub, tmp_path, FETCH.format(name="owner/other"))
    assert done.stdout == "The hub has no repository owner/other (or it needs HF_TOKEN).\n", done.stderr
    assert run(hub, tmp_path, FETCH.format(name="../x")).stdout.startswith("'../x' is no repository name")
    hub.__exit__()
    assert run(hub, tmp_path, FETCH.format(name=REPO)).stdout.startswith("The download failed (")


def test_weights_that_are_not_what_the_hub_says_are_deleted(hub, tmp_path):
    hub.files["model.safetensors"].record["sha256"] = "0" * 64
    done = run(hub, tmp_path, FETCH.format(name=REPO))
    assert "model.safetensors is not what the hub says it is (SHA-256)" in done.stdout, done.stderr
    assert not (tmp_path / "checkpoints/owner--tiny-GGUF/model.safetensors").exists()
