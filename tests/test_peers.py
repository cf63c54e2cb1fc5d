"""The comparison with other servers: who takes part, what each is told, and which of two values is better."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import prompts, stream
from bench.peers import __main__ as peers
from bench.peers import build, contest, original, peer, scenarios
from bench.peers.pairs import Pairs, Turns
from bench.peers.peer import AbsentError, Peer, Sizes
from bench.peers.scenarios import DELAY, RATE, Sample, Server
from bench.stream import Answer, WrongAnswerError
from engine.header import read_header
from tests.other_server import Handler, ThreadingHTTPServer

SIZES = Sizes(n_slots=8, n_ctx=1024, n_threads=2)
SHORT = ["--scenarios", "one", "second", "--turns", "2"]
# A stand-in for ollama's program: it writes down what it is told.
OLLAMA = """#!{python} -I
import json, os, sys
sys.path.insert(0, {root!r})
from tests.other_server import Handler, ThreadingHTTPServer
told = {{name: value for name, value in os.environ.items() if name.startswith("OLLAMA_")}}
with open({log!r}, "a") as log:
    print(json.dumps([sys.argv[1:], told]), file=log)
if sys.argv[1] == "serve":
    port = int(os.environ["OLLAMA_HOST"].rpartition(":")[2])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@contextmanager
def running(**behaviour) -> Iterator[tuple[Server, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Other", (Handler,), {"bodies": bodies, **behaviour}))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{httpd.server_port}"), bodies
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture
def linnet(monkeypatch):
    """Our own server is not started: what it does is no matter here."""

    @contextmanager
    def fake(model, sizes):
        with running() as (server, _):
            yield server

    monkeypatch.setattr(peer, "linnet", fake)


@pytest.fixture
def path(monkeypatch, tmp_path):
    """A search path on which nothing is installed; logs go elsewhere."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "HOME", tmp_path)
    monkeypatch.setattr(stream, "ROOT", tmp_path)
    return tmp_path


def pairs(unit, ours, theirs):
    return Pairs(unit, [Sample(v, 10, 20) for v in ours], [Sample(v, 10, 20) for v in theirs])


def test_a_ratio_above_one_says_that_linnet_is_better_whichever_way_is_good():
    assert pairs(RATE, [30, 20], [15, 20]).ratios == [2, 1]
    assert pairs(DELAY, [1, 2], [3, 2]).ratios == [3, 1]
    assert {s.unit for s in scenarios.SCENARIOS.values()} == {RATE, DELAY}


def test_the_spread_of_the_ratio_is_that_of_the_pairs_not_of_the_medians():
    plain = pairs(RATE, [10, 20, 30], [10, 40, 10]).plain()
    assert plain["ours"] == {"median": 20, "low": 10, "high": 30}
    assert plain["theirs"] == {"median": 10, "low": 10, "high": 40}
    assert plain["ratio"] == {"median": 1, "low": 0.5, "high": 3}


def test_the_two_take_turns_and_who_begins_changes():
    order: list[str] = []
    salts: list[str] = []
    told: list[str] = []

    def side(name):
        def run(salt):
            order.append(name)
            salts.append(salt)
            return Sample(1, 0, 1)

        return run

    turns = Turns(3, lambda started, ended: len(order) == 4, told.append)
    found = turns.take("x", "four", RATE, side("us"), side("them"))
    assert order == ["us", "them", "them", "us", "us", "them"]
    assert salts == ["0 four", "0 four", "1 four", "1 four", "2 four", "2 four"], "the same for all peers"
    assert len(found.ours) == len(found.theirs) == 3
    assert found.disturbed == 1
    assert told[-1] == "x, four: turn 3 of 3"


def test_a_row_reads_as_a_line_of_the_table():
    row = contest.Row("x", "one", "one client", pairs(RATE, [10, 20, 30], [10, 40, 10]), "slow")
    assert str(row).split() == "one client 20.0 (10.0 - 30.0) 10.0 (10.0 - 40.0) tokens/s 1.00 (0.5 - 3.00) slow".split()


def test_unequal_work_is_said():
    ours, theirs = [Sample(1, 100, 64)], [Sample(1, 140, 20)]
    assert Pairs(RATE, ours, theirs).uneven == "prompts of 100 and 140 tokens and answers of 64 and 20 tokens"
    assert not Pairs(RATE, ours, [Sample(1, 0, 63)]).uneven, "a server that does not count its prompts is not accused"


def test_every_scenario_runs_against_any_server_and_the_second_turn_brings_the_first():
    with running() as (server, bodies):
        for scenario in scenarios.SCENARIOS.values():
            found = scenario.run(server, "0")
            assert found.value > 0
            assert found.n_tokens and found.n_prompt
        bodies.clear()
        scenarios.second(server, "0")
        first, second = bodies
        assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
        assert second["messages"][0] == first["messages"][0]
        assert second["messages"][1]["content"] == "".join(f"{i} " for i in range(first["max_tokens"]))
        assert "model" not in first


def test_both_sides_get_the_same_prompts_which_are_new_in_each_turn_and_tasks_of_the_set():
    with running() as (ours, to_us), running() as (theirs, to_them):
        for key, scenario in scenarios.SCENARIOS.items():
            turns = Turns(2, lambda *_: False, lambda _: None)
            turns.take("x", key, scenario.unit, partial(scenario.run, ours), partial(scenario.run, theirs))
    said, heard = ([body["messages"][0]["content"] for body in bodies] for bodies in (to_us, to_them))
    assert sorted(said) == sorted(heard)
    questions = {task.messages[0]["content"] for task in prompts.load()}
    salts = {next(text.removesuffix(question) for question in questions if text.endswith(question)) for text in said}
    assert all(salts), "each begins with its salt, so that nothing of it is known"
    new = [text for text in said if "shared" not in text]
    second = 2  # the second turn of a chat begins as the first does
    assert len(set(new)) == len(new) - second


def test_the_first_text_of_a_shared_system_prompt_is_that_of_the_slowest(monkeypatch):
    answers = [Answer(0, [first], 16, 7) for first in (1, 5, 3)]
    monkeypatch.setattr(scenarios, "ask_all", lambda *_: answers)
    assert scenarios.shared(Server(""), "0") == Sample(5, 21, 48)
    assert scenarios.SCENARIOS["shared"].title.endswith("slowest first text")


def test_an_answer_of_a_wrong_length_is_an_error_and_an_uncounted_one_is_counted():
    with running(n_more=1) as (server, _), pytest.raises(WrongAnswerError):
        scenarios.clients(1)(server, "0")
    with running(counts=False) as (server, _):
        assert scenarios.clients(2)(server, "0").n_tokens == 2 * scenarios.N_ANSWER


def test_all_get_the_same_slots_context_and_threads():
    assert " ".join(peer.llama_server_options("m.gguf", 9, SIZES)) == (
        "-m m.gguf --host 127.0.0.1 --port 9 --parallel 8 -c 8192 -t 2"
    ), "llama-server divides its context among its slots"
    module = " ".join(peer.module_server_options("m.gguf", 9, SIZES))
    assert "--n_ctx 1024 --n_threads 2 --n_threads_batch 2" in module
    assert "--interrupt_requests False" in module, "else a second client ends the answer of the first"
    assert peer.ollama_recipe("/m.gguf", SIZES) == "FROM /m.gguf\nPARAMETER num_ctx 1024\nPARAMETER num_thread 2\n"
    assert peer.ollama_environment("/f", 9, SIZES) == {
        "OLLAMA_HOST": "127.0.0.1:9",
        "OLLAMA_MODELS": "/f/models",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NUM_PARALLEL": "8",
        "OLLAMA_CONTEXT_LENGTH": "1024",
    }
    assert contest.bare_command("bench", Path("m.gguf"), SIZES, 5)[-8:] == "-t 2 -p 256 -n 64 -r 5".split()


def test_who_is_not_installed_is_said_and_the_others_go_on(linnet, path, endless_model, capfd, tmp_path):
    program = path / "ollama"
    log = path / "told"
    program.write_text(OLLAMA.format(python=sys.executable, root=str(Path(__file__).parent.parent), log=str(log)))
    program.chmod(0o755)
    results = tmp_path / "results"
    assert peers.main([str(endless_model), "--only", "llamafile", "ollama", *SHORT], results) == 0
    out = capfd.readouterr().out
    assert "llamafile takes no part: llamafile is not installed." in out
    (file,) = results.iterdir()
    assert out.splitlines()[-1] == str(file)
    assert file.name.endswith("-peers.json")
    found = json.loads(file.read_text())
    assert found["absent"] == {"llamafile": "llamafile is not installed."}
    assert [(row["name"], row["scenario"], row["unit"], row["turns"]) for row in found["peers"]] == [
        ("ollama", "one", RATE, 2),
        ("ollama", "second", DELAY, 2),
    ]
    assert all(set(row["ratio"]) == {"median", "low", "high"} for row in found["peers"])
    (serve, environment), (create, _) = map(json.loads, log.read_text().splitlines())
    assert serve == ["serve"]
    assert create[:2] == ["create", peer.NAME]
    assert not Path(environment["OLLAMA_MODELS"]).exists(), "its folder is gone afterwards"


@pytest.fixture
def peers_of_ours(monkeypatch):
    """Servers that need no program, by their names; what each is like is given."""

    def add(name, **behaviour):
        @contextmanager
        def serve(program, model, sizes):
            with running(**behaviour) as (server, _):
                yield server

        monkeypatch.setitem(peer.PEERS, name, Peer(lambda: "", serve))

    return add


def names(file):
    return [(row["name"], row["scenario"]) for row in json.loads(file.read_text())["peers"]]


@pytest.mark.parametrize(("line", "why"), [("{hello", "JSONDecodeError"), ('{"choices": [{}]}', "KeyError")])
def test_an_odd_answer_ends_that_peers_part_only(linnet, peers_of_ours, endless_model, tmp_path, line, why):
    peers_of_ours("llama-server", odd=line, n_good=3)  # two to warm up, one for the first scenario
    peers_of_ours("llamafile")
    options = ["--only", "llama-server", "llamafile", "--scenarios", "one", "second", "--turns", "1"]
    assert peers.main([str(endless_model), *options], tmp_path) == 0
    (file,) = tmp_path.iterdir()
    assert names(file) == [("llama-server", "one"), ("llamafile", "one"), ("llamafile", "second")]
    absent = json.loads(file.read_text())["absent"]
    assert absent["llama-server"].startswith(f"Its answer was not understood: {why}(")


def test_what_a_peer_gave_is_written_before_the_next_one_starts(monkeypatch, linnet, peers_of_ours, endless_model, tmp_path):
    def stop():
        raise KeyboardInterrupt

    peers_of_ours("llama-server")
    monkeypatch.setitem(peer.PEERS, "llamafile", Peer(stop, peer.llamafile))
    options = ["--only", "llama-server", "llamafile", "--scenarios", "one", "--turns", "1"]
    with pytest.raises(KeyboardInterrupt):
        peers.main([str(endless_model), *options], tmp_path)
    (file,) = tmp_path.iterdir()
    assert names(file) == [("llama-server", "one")]


def test_a_second_run_adds_its_peers_unless_something_else_was_measured(
    linnet, peers_of_ours, endless_model, tmp_path, capsys
):
    options = ["--scenarios", "one", "--turns", "1", "--only"]
    for name in ("llamafile", "llama-server", "llamafile"):
        peers_of_ours(name)
        assert peers.main([str(endless_model), *options, name], tmp_path) == 0
    (file,) = tmp_path.iterdir()
    assert names(file) == [("llama-server", "one"), ("llamafile", "one")]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": {"threads": 99}}))
    assert peers.main([str(endless_model), *options, "llamafile"], tmp_path) == 0
    assert names(file) == [("llamafile", "one")]
    file.write_text("{")
    assert peers.main([str(endless_model), *options, "llamafile"], tmp_path) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_with_nobody_to_compare_with_there_is_no_result(linnet, path, endless_model, capfd, tmp_path):
    assert peers.main([str(endless_model), "--only", "ollama"], tmp_path / "results") == 1
    captured = capfd.readouterr()
    assert "ollama is not installed." in captured.out
    assert "Nothing could be compared" in captured.err
    assert not (tmp_path / "results").exists()


def test_a_server_that_does_not_start_is_said_with_its_log(linnet, path, endless_model, capfd, tmp_path):
    program = path / "ollama"
    program.write_text("#!/bin/sh\necho no memory\nexit 3\n")
    program.chmod(0o755)
    assert peers.main([str(endless_model), "--only", "ollama"], tmp_path / "results") == 1
    assert "ollama takes no part: ollama did not start; ollama.log tells why." in capfd.readouterr().out
    assert (path / "ollama.log").read_text() == "no memory\n"


def test_the_source_is_that_of_the_pinned_version(tmp_path):
    pinned = (stream.ROOT / "requirements.txt").read_text().split("llama-cpp-python==")[1].split()[0]
    assert build.version() == pinned
    other = tmp_path / "requirements.txt"
    other.write_text("torch>=2\n")
    with pytest.raises(build.BuildError, match=r"requirements\.txt does not pin torch\."):
        build.pins("torch", file=other)
    assert set(build.pins("torch", "transformers", "cmake", "ninja")) == {"torch", "transformers", "cmake", "ninja"}


def test_llama_cpp_is_built_for_this_machine_without_a_network():
    configure, make = (" ".join(command) for command in build.commands(Path("there")))
    for option in ("GGML_NATIVE=ON", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF"):
        assert f"-D{option}" in configure
    assert make.endswith("--build there/build --target llama-server llama-bench")
    assert build.progress("[50/200] Building CXX object") == 25
    assert build.progress("-- Configuring done") is None


def package(path, names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"ok"))
    return path


def test_only_llama_cpp_is_unpacked_and_nothing_outside(tmp_path):
    names = ["x-1/vendor/llama.cpp/CMakeLists.txt", "x-1/llama_cpp/llama.py", "x-1/vendor/llama.cpp/src/a.cpp"]
    source = tmp_path / "in" / "source"
    build.unpack(package(tmp_path / "x-1.tar.gz", names), source)
    assert {p.relative_to(source).as_posix() for p in source.rglob("*")} == {"CMakeLists.txt", "src", "src/a.cpp"}
    for names in (["x-1/vendor/llama.cpp/../../../../evil"], ["x-1/setup.py"]):
        with pytest.raises(build.BuildError, match=r"bad\.tar\.gz could not be unpacked"):
            build.unpack(package(tmp_path / "bad.tar.gz", names), source)
    assert not (tmp_path / "evil").exists()
    assert [p.name for p in (tmp_path / "in").iterdir()] == []


def test_a_failed_build_is_one_sentence_with_the_path_of_its_log(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    failing = [sys.executable, "-c", "print('no such compiler'); raise SystemExit(1)"]
    with pytest.raises(build.BuildError, match=r"^Building failed; it\.log tells why\.$"):
        build.run(failing, tmp_path / "it.log", "Building failed")
    assert (tmp_path / "it.log").read_text() == "no such compiler\n"


def test_the_baseline_has_the_shape_of_the_model(endless_model, monkeypatch):
    assert original.shape_of(endless_model) == {
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }
    assert original.N_ANSWER >= 20
    monkeypatch.setattr(original, "ROOM", 1e9)
    with pytest.raises(AbsentError, match="of memory in float32"):
        original.shape_of(endless_model)
    header = read_header(endless_model)
    del header.values["llama.feed_forward_length"]
    with pytest.raises(AbsentError, match="does not say its intermediate_size"):
        original.config(header)


def test_the_baseline_answers_through_its_pipes():
    def other(line):
        return original.Original(io.StringIO(), io.StringIO(line))

    asked = other(json.dumps([original.N_ANSWER, 4.0]))
    assert asked.answer(95) == Sample(original.N_ANSWER / 4, 95, original.N_ANSWER)
    assert json.loads(asked.asks.getvalue()) == [95, original.N_ANSWER]
    for line in ("", "[3, 1.0]"):  # it has ended; it stopped early
        with pytest.raises(RuntimeError, match=r"transformers\.log tells why"):
            other(line).answer(95)
