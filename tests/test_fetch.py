"""A checkpoint is fetched from a hub by the library people use, against a small hub of our own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.checkpoints.copies import FOLDER
from tests.conftest import ROOT

COMMIT = "0123456789" * 4
CHECKPOINT = {path.name: path.read_bytes() for path in (FOLDER / "qwen2-tied").iterdir()}
UNWANTED = {
    "evil.py": b"x",
    "pytorch_model.bin": b"x",
    "original/model.safetensors": b"x",
    "README.md": b"x",
    "a.gguf": b"x",
}


class Hub(BaseHTTPRequestHandler):
    """One repository, owner/name."""

    asked: list[str]
    lies = False  # about what is in the weights

    def record(self, name, content):
        digest = hashlib.sha256(content + b"x" * self.lies).hexdigest()
        lfs = {"sha256": digest, "size": len(content), "pointerSize": 100} if name.endswith(".safetensors") else None
        return {"rfilename": name, "size": len(content), "lfs": lfs}

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        files, name = CHECKPOINT | UNWANTED, self.path.partition(f"/resolve/{COMMIT}/")[2]
        self.asked.append(name)
        if self.path.startswith("/api/models/owner/name/tree/"):
            entries = [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
            self.answer(json.dumps(entries).encode(), "application/json")
        elif self.path.startswith("/api/models/owner/name"):
            found = {"id": "owner/name", "sha": COMMIT, "siblings": [self.record(name, files[name]) for name in files]}
            self.answer(json.dumps(found).encode(), "application/json")
        elif name in files:
            self.answer(files[name], "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    class OneTest(Hub):
        asked: list[str] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), OneTest)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(hub, tmp_path, script):
    # The library reads HF_ENDPOINT when it is imported, so it is imported in a process of its own.
    place = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
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
    done = run(hub, tmp_path, FETCH.format(name="owner/name"))
    folder = tmp_path / "checkpoints" / "owner--name"
    assert done.stdout == f"{folder}\n", done.stderr
    wanted = {name for name in CHECKPOINT if name.endswith((".safetensors", ".json"))}
    assert {path.name for path in folder.iterdir() if path.is_file()} == wanted
    assert (folder / "model.safetensors").read_bytes() == CHECKPOINT["model.safetensors"]
    assert not set(UNWANTED) & set(hub.RequestHandlerClass.asked)


def test_a_repository_that_is_not_there_is_said_in_one_sentence(hub, tmp_path):
    done = run(hub, tmp_path, FETCH.format(name="owner/other"))
    assert done.stdout == "The hub has no repository owner/other (or it needs HF_TOKEN).\n", done.stderr
    assert run(hub, tmp_path, FETCH.format(name="../x")).stdout.startswith("'../x' is no repository name")
    hub.shutdown()
    hub.server_close()
    assert run(hub, tmp_path, FETCH.format(name="owner/name")).stdout.startswith("The download failed (")


def test_weights_that_are_not_what_the_hub_says_are_deleted(hub, tmp_path):
    hub.RequestHandlerClass.lies = True
    done = run(hub, tmp_path, FETCH.format(name="owner/name"))
    assert "model.safetensors is not what the hub says it is (SHA-256)" in done.stdout, done.stderr
    assert not (tmp_path / "checkpoints/owner--name/model.safetensors").exists()
