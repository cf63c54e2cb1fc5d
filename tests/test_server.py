"""python server.py as a user meets it: starting, crashing, ending, and wrong options. Real processes and signals."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from engine.request import Config, dump
from models import store
from tests.conftest import DEMO, PATIENCE_S, ROOT, Server

ENDLESS = ("--ctx", "50000", "--keep-loops", "--no-draft")


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers and ends what is left of them after the test."""
    servers: list[Server] = []

    def start(*options: str, model: Path = DEMO) -> Server:
        servers.append(Server(*options, model=model))
        return servers[-1]

    yield start
    for server in servers:
        server.end(signal.SIGKILL)


class Call:
    """One raw HTTP call, so that every byte is seen and the connection can be dropped."""

    def __init__(self, server: Server, path: str = "/v1/chat/completions", **body: object) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE_S)
        if body:
            body = {"messages": [{"role": "user", "content": "xylophone"}]} | body
            self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        else:
            self._connection.request("GET", path)

    def answer(self) -> tuple[int, Any]:
        """Status and JSON."""
        response = self._connection.getresponse()
        result = response.status, json.loads(response.read())
        self._connection.close()
        return result

    def begin(self) -> Call:
        """Reads a stream up to its first text."""
        self._response = self._connection.getresponse()
        while b'"content":"' not in (line := self._response.readline()) or b'"content":""' in line:
            assert line, "the stream ended before it began"
        return self

    def rest(self) -> list[str]:
        """The data lines of the rest of the stream."""
        lines = self._response.read().decode().split("\n\n")
        self._connection.close()
        return [line.strip().removeprefix("data: ") for line in lines if line.strip()]

    def drop(self) -> None:
        """Hangs up without a word."""
        if hasattr(self, "_response"):
            self._response.close()
        self._connection.close()


def sentences(log: list[str]) -> list[str]:
    """Log lines without their times."""
    return [line.split(" ", 1)[1] for line in log]


def gone(*processes: psutil.Process) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]


def test_a_killed_worker_costs_the_running_answers_and_nothing_else(start, endless_model):
    server = start(*ENDLESS, model=endless_model)
    streams = [Call(server, stream=True).begin() for _ in range(2)]
    log_length = len(server.log)
    os.kill(server.worker.pid, signal.SIGSEGV)
    for stream in streams:
        *_, error, done = stream.rest()
        assert json.loads(error)["error"]["code"] == "engine_crashed"
        assert done == "[DONE]"
    server.wait_for("SIGSEGV", log_length)
    status, health = Call(server, "/health").answer()
    while status == 503:  # for the second it takes to load again
        assert health["status"] == "restarting"
        status, health = Call(server, "/health").answer()
    assert (status, health["status"], health["restarts"]) == (200, "ok", 1)
    assert Call(server, max_tokens=3).answer()[0] == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_answers_end_refuses_new_ones_and_leaves_no_process(start, how, endless_model):
    server = start(*ENDLESS, model=endless_model)
    worker = server.worker
    stream = Call(server, stream=True, max_tokens=1000).begin()
    log_length = len(server.log)
    server.process.send_signal(how)
    server.wait_for("Finishing 1 running", log_length)
    status, refusal = Call(server, max_tokens=1).answer()
    assert (status, refusal["error"]["code"]) == (503, "server_stopping")
    assert Call(server, "/health").answer()[0] == 503
    *_, finish, done = stream.rest()
    assert json.loads(finish)["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"
    assert server.process.wait(PATIENCE_S) == 0
    assert gone(worker)


def test_a_second_signal_ends_the_running_answers_with_an_error(start, endless_model):
    server = start(*ENDLESS, model=endless_model)
    worker = server.worker
    stream = Call(server, stream=True).begin()
    log_length = len(server.log)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("Finishing 1 running", log_length)
    assert server.end(signal.SIGTERM) == 0
    *_, error, done = stream.rest()
    assert json.loads(error)["error"]["code"] == "server_stopping"
    assert done == "[DONE]"
    assert gone(worker)


def test_a_signal_while_the_model_is_loaded_ends_everything(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "server.py"), "--port", "0", "--no-cache", "--model", str(DEMO)], stderr=subprocess.PIPE
    )
    assert process.stderr
    process.stderr.readline()  # "Loading ..."
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 0


def test_a_signal_to_the_whole_group_lets_running_answers_end_too(start, endless_model):
    server = start(*ENDLESS, model=endless_model)
    stream = Call(server, stream=True, max_tokens=500).begin()
    server.worker.terminate()  # as a service manager does
    assert server.end(signal.SIGTERM) == 0
    *_, finish, done = stream.rest()
    assert json.loads(finish)["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


def test_a_worker_ends_with_its_input_even_in_the_middle_of_a_line():
    worker = subprocess.Popen(
        [sys.executable, "-m", "engine.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(dump(Config(str(DEMO), None, 1, 1)))
    worker.stdin.flush()
    assert b"Ready" in worker.stdout.readline()
    worker.stdin.write(b'["Request", {"id": "cut')
    worker.stdin.close()
    assert worker.wait(PATIENCE_S) is not None
    worker.stdout.close()


def test_a_body_far_too_large_is_refused_from_its_header_in_openais_shape(server):
    with socket.create_connection(urlsplit(server.url).netloc.split(":")) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "request_too_large"


def test_a_killed_front_leaves_no_worker(start, endless_model):
    server = start(*ENDLESS, model=endless_model)
    worker = server.worker
    Call(server, stream=True).begin()
    server.end(signal.SIGKILL)
    assert gone(worker)


@pytest.mark.parametrize("phase", ["streaming", "not streaming", "queued", "reading a long prompt"])
def test_a_client_that_hangs_up_frees_the_slot_for_the_next(start, endless_model, phase):
    server = start(*ENDLESS, "--slots", "1", model=endless_model)
    blocker = None
    if phase == "queued":
        blocker = Call(server, stream=True).begin()
    if phase == "streaming":
        call = Call(server, stream=True).begin()
    elif phase == "reading a long prompt":
        call = Call(server, stream=True, messages=[{"role": "user", "content": "a " * 45000}])
    else:
        call = Call(server, max_tokens=40000)
    while Call(server, "/health").answer()[1]["requests"] < (2 if blocker else 1):
        pass
    log_length = len(server.log)
    call.drop()
    server.wait_for("client left", log_length)
    if blocker:
        log_length = len(server.log)
        blocker.drop()
        server.wait_for("client left", log_length)
    assert Call(server, "/health").answer()[1]["requests"] == 0
    assert Call(server, max_tokens=3).answer()[0] == 200


def test_a_full_queue_is_answered_with_429_and_the_time_to_come_back(start, endless_model):
    server = start(*ENDLESS, "--slots", "1", "--max-queue", "0", model=endless_model)
    running = Call(server, stream=True).begin()
    status, refusal = Call(server, max_tokens=1).answer()
    assert (status, refusal["error"]["code"]) == (429, "rate_limit_exceeded")
    running.drop()
    server.wait_for("client left")
    assert sum("429" in line for line in server.log) == 1


def test_the_log_has_a_line_for_each_request_and_no_text_of_it(start):
    server = start()
    log_length = len(server.log)
    Call(server, messages=[{"role": "user", "content": "hello my secret"}]).answer()
    line = server.wait_for("chat:", log_length)
    assert re.search(
        r"200 bypass, \d+ \+ \d+ tokens, end_of_turn, \d+ known, \d+\.\d tokens/s, first after \d+\.\d\d s", line
    )
    Call(server, messages=[{"role": "secret", "content": "hello"}]).answer()
    assert "400" in server.wait_for("POST /v1/chat/completions", log_length)
    server.end()
    lines = sentences(server.log[log_length:])
    assert [line.split()[0] for line in lines] == ["chat:", "POST"]
    assert "secret" not in "\n".join(lines)


def test_the_last_used_model_is_the_next_runs_default_and_an_alias_is_its_name(start, endless_model, tmp_path):
    def run(*options: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "server.py", "--port", "0", "--cache-dir", str(tmp_path), *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        line = next(line for line in process.stderr if "parameters" in line)
        process.terminate()
        process.stderr.read()
        process.stderr.close()
        assert process.wait(PATIENCE_S) == 0
        return line.split()[1]

    assert run() == "demo:"
    assert run("--model", str(endless_model), "--alias", "mine") == "mine:"
    assert store.find(None, tmp_path) == endless_model
    assert run() == "endless:"


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "directory.gguf").mkdir()
    (folder / "empty.gguf").touch()
    (folder / "cut.gguf").write_bytes(DEMO.read_bytes()[:100_000])
    (folder / "page.gguf").write_text("<!doctype html><title>404</title>")
    return {
        "no home": (Path("~nobody-of-that-name/x.gguf"), "cannot be found"),
        "none": (folder / "none.gguf", "There is no model"),
        "directory": (folder / "directory.gguf", "is a directory"),
        "empty": (folder / "empty.gguf", "is empty"),
        "cut": (folder / "cut.gguf", "not within the file bounds"),
        "page": (folder / "page.gguf", "is a web page"),
    }


def refusal(*options: str) -> str:
    """What a server says that does not start: its whole output without the log."""
    command = [sys.executable, str(ROOT / "server.py"), "--no-cache", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode not in (0, None)
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    said = [line for line in run.stderr.splitlines() if "Loading" not in line]
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize("kind", ["no home", "none", "directory", "empty", "cut", "page"])
def test_a_file_that_is_no_model_ends_the_start_with_one_sentence(tmp_path, kind):
    path, words = bad_files(tmp_path)[kind]
    assert words in refusal("--port", "0", "--model", str(path))


def test_a_port_in_use_ends_the_start_with_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "already in use" in refusal("--port", str(port), "--model", "demo")


def test_an_unknown_option_ends_the_start_with_one_sentence():
    assert "--colour" in refusal("--colour", "red")


def test_help_is_printed_and_starts_nothing():
    run = subprocess.run([sys.executable, "server.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--keep-alive SECONDS" in run.stdout
