"""The answer cache of a real server: restarts, crashes, many clients at once."""

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import psutil
import pytest

from tests.conftest import DEMO, Server

STORY = [{"role": "user", "content": "Tell me a story about a fox."}]
POEM = [{"role": "user", "content": "Write a poem about rain."}]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers, one after the other, that keep what they compute in the same folder."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server("--cache-dir", str(tmp_path), *options, keep=True))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.end()


def ask(client: openai.OpenAI, messages=STORY, **fields):
    """The answer's text, and how it was found."""
    response = client.chat.completions.with_raw_response.create(model="default", messages=messages, **fields)
    answer = response.parse()
    if fields.get("stream"):
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer), response.headers["x-linnet-cache"]
    return answer.choices[0].message.content, response.headers["x-linnet-cache"]


def test_an_answer_outlives_the_server_that_gave_it(start):
    with start().client() as client:
        text, how = ask(client)
        assert how == "miss"
        assert ask(client, stream=True) == (text, "hit")
    first = start().client()
    assert ask(first) == (text, "hit")
    assert ask(first, max_tokens=5, stream=True)[1] == "hit"
    first.close()


def test_known_answers_are_given_while_the_engine_is_dead_and_while_it_hangs(start):
    server = start()
    with server.client() as client:
        text, _ = ask(client)
        worker = server.worker
        worker.send_signal(signal.SIGSTOP)  # it answers nobody
        assert ask(client) == (text, "hit")
        n_lines = len(server.log)
        worker.kill()
        assert ask(client) == (text, "hit")
        server.wait_for("The engine runs again", n_lines)
        assert ask(client) == (text, "hit")


def test_a_replaced_model_gives_none_of_the_old_ones_answers(start, tmp_path, endless_model):
    model = tmp_path / "model.gguf"
    shutil.copyfile(DEMO, model)
    server = start("--model", str(model))
    with server.client() as client:
        old, _ = ask(client, max_tokens=5)
        shutil.copyfile(endless_model, tmp_path / "new")
        (tmp_path / "new").replace(model)
        assert ask(client, max_tokens=5) == (old, "bypass"), "the old one is still loaded"
        n_lines = len(server.log)
        server.worker.kill()
        server.wait_for("The engine runs again", n_lines)
        ways: list[str] = []
        while not ways or ways[-1] != "hit":  # until it is known which model that is
            new, how = ask(client, max_tokens=5)
            assert new != old
            ways.append(how)
        assert "miss" in ways


def test_many_who_ask_the_same_at_once_share_one_generation(start):
    server = start()
    answers = []
    barrier = threading.Barrier(32)

    def one(i: int) -> None:
        with server.client() as client:
            barrier.wait()
            answers.append(ask(client, stream=i % 2 == 0))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts, ways = {text for text, _ in answers}, [how for _, how in answers]
    assert len(texts) == 1
    assert ways.count("miss") == 1
    assert ways.count("joined") + ways.count("hit") == 31


def test_a_longer_answer_is_the_shorter_one_and_what_follows(start):
    with start().client() as client, Server() as plain, plain.client() as judge:
        text, _ = ask(client, POEM, max_tokens=20)
        longer, how = ask(client, POEM, max_tokens=40)
        assert how == "miss"
        assert longer.startswith(text)
        whole, _ = ask(judge, POEM)
        assert whole.startswith(longer)
        assert ask(client, POEM)[0] == whole


def test_a_killed_server_has_no_wrong_answers_and_starts_again(start, tmp_path):
    wanted: dict[str, str] = {}
    for turn in range(3):
        server = start()
        with server.client() as client:
            for i in range(turn, turn + 4):
                question = f"What is {i} + 3{i}?"
                text, _ = ask(client, [{"role": "user", "content": question}])
                assert wanted.setdefault(question, text) == text
        worker = server.worker
        server.end(signal.SIGKILL)
        psutil.wait_procs([worker], timeout=10)
    with sqlite3.connect(tmp_path / "answers" / "cache.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_the_answers_folder_is_for_its_owner_alone(start, tmp_path):
    with start().client() as client:
        ask(client, POEM, max_tokens=5)
    assert (tmp_path / "answers").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "answers").stat().st_uid == os.getuid()


def test_hits_are_in_the_log_without_a_word_of_what_was_said(start):
    server = start()
    with server.client() as client:
        ask(client, POEM)
        ask(client, POEM)
    line = server.wait_for("200 hit")
    assert "tokens, end_of_turn" in line
    assert not any("rain" in line for line in server.log)
