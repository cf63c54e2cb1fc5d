"""`python -m models.download` as a process: killed, interrupted, started twice, offline."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from models.hub import Hub, Wish
from models.part import Part
from models.route import Route
from tests import hub as fake
from tests.conftest import ROOT
from tests.hub import NAME, REPO, stall

PATIENCE_S = 30.0
MAIN = "import sys, pathlib; from models.download import main; sys.exit(main(sys.argv[2:], pathlib.Path(sys.argv[1])))"


@pytest.fixture
def hub():
    with fake.tiny() as hub:
        yield hub


@pytest.fixture
def start(hub, tmp_path):
    """Starts the program, with a folder of its own in place of models/."""
    started = []

    def start(*arguments, **environment):
        settings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "PYTHONUNBUFFERED": "1"} | environment
        command = [sys.executable, "-c", MAIN, str(tmp_path / "models"), *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, env=settings, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process):
    """Exit code and what it said on stdout and stderr."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    return process.returncode, out, err


def wait_for_part(folder, n_bytes):
    """Until another process has written so much: nobody tells us when."""
    deadline = time.monotonic() + PATIENCE_S
    part = folder / "models" / ".parts" / f"{NAME}.part"
    while not part.exists() or part.stat().st_size < n_bytes:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_a_killed_download_goes_on_in_the_next_process(hub, start, tmp_path):
    hub.faults.append(stall(300_000))
    process = start(REPO)
    wait_for_part(tmp_path, 300_000)
    process.kill()
    process.communicate()
    code, out, err = end(start(REPO))
    assert (code, out) == (0, "tiny.Q4_K_M is installed: python server.py --model tiny.Q4_K_M\n")
    assert "B/s" in err, "the bar tells the speed"
    assert (tmp_path / "models" / NAME).read_bytes() == hub.files[NAME].content
    assert [seen.headers.get("range") for seen in hub.bodies()] == [None, "bytes=300000-"]
    assert fake.tree(tmp_path).keys() == {f"models/{NAME}", f"models/.parts/{NAME}.ours"}, (
        "nothing else, not in HF_HOME either"
    )
    assert all(REPO in seen.path for seen in hub.seen if seen.server == "hub"), "and nothing else was asked for"


def test_ctrl_c_stops_with_a_sentence(hub, start, tmp_path):
    hub.faults.append(stall(300_000))
    process = start(REPO)
    wait_for_part(tmp_path, 300_000)
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    assert err.splitlines()[-1] == "Stopped; the same command goes on there."
    assert end(start(REPO))[0] == 0


def test_of_two_processes_one_fetches_and_the_other_waits(hub, start, tmp_path):
    gate = threading.Event()
    hub.faults.append(lambda handler, content: not gate.wait(PATIENCE_S))
    first = start(REPO)
    hub.wait_for_bodies(1)
    second = start(REPO)
    said = second.stderr.readline()
    assert said == "Another download of the same model is under way; this one waits for it.\n"
    gate.set()
    assert [end(first)[0], end(second)[0]] == [0, 0]
    assert len(hub.bodies()) == 1


def test_a_lock_that_its_holder_removes_just_now_is_no_lock(hub, tmp_path, monkeypatch):
    part = Part(tmp_path, Hub(Route(hub.url)).find(Wish(REPO)))
    path = tmp_path / ".parts" / f"{NAME}.lock"
    gone: list[None] = []

    def flock(lock, how):
        if not gone:
            path.unlink()
            gone.append(None)

    monkeypatch.setattr(fcntl, "flock", flock)
    with part.lock(pytest.fail):
        assert path.exists(), "the next one could not see that it is locked"
    assert not path.exists()


def test_what_fails_is_told_in_one_sentence(hub, start):
    hub.token, hub.error_code = "hf_good", "GatedRepo"
    cases = [
        (start(REPO, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE is set"),
        (start("-rf"), "-rf is no model: it is one of tinyllama"),
        (start("owner/<img>"), "owner/<img> is no model"),
        (start(REPO, HF_TOKEN="hf_bad"), f"{REPO} is gated"),
        (start(REPO, HF_ENDPOINT="nowhere"), "HF_ENDPOINT is no address of a hub: nowhere"),
    ]
    for process, words in cases:
        code, out, err = end(process)
        assert (code, out) == (1, "")
        assert err.startswith(words)
        assert err.count("\n") == 1
    assert [seen.headers.get("authorization") for seen in hub.seen] == ["Bearer hf_bad"], "offline means no request at all"
