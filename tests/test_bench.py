"""make bench: what it writes, what it refuses, and that it marks what other programs disturbed. Speeds are not tested."""

import contextlib
import http.server
import io
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import psutil
import pytest

from bench import __main__ as bench
from bench import clients, hits, inside, machine, neighbours, result, stream
from bench.alone import lengths
from bench.figure import BenchError, Figure, Missing, Record, Remark, Taken
from bench.kinds import KINDS, Kind, kinds
from bench.limit import with_limits
from bench.machine import Meter
from bench.plan import FULL, QUICK, Plan, pair
from bench.table import short, table
from engine import threads
from engine.header import read_header
from models import store
from tests.conftest import DEMO

TINY = Plan((16, 4096), (1, 2), n_turns=1, n_answer=8, n_chat=32, n_steps=4, n_script=12, n_story=60, n_hits=5)
ONE = {"load.warm_s": KINDS["load.warm_s"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of all parts with the demo model: its exit code, what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("results")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = bench.main(["demo", "--quick"], TINY, folder)
    return code, out.getvalue().splitlines(), folder


def test_the_last_line_is_the_path_of_the_results_and_a_page_with_pictures_lies_beside(run):
    code, lines, folder = run
    path = Path(lines[-1])
    assert code == 0
    assert path.parent == folder
    assert path.suffix == ".json"
    assert sorted(one.suffix for one in folder.iterdir()) == [".html", ".json"]


def test_the_results_say_what_was_measured_where_and_with_what(run):
    found = json.loads(Path(run[1][-1]).read_text())
    assert {"format", "date", "quick", "seconds", "machine", "versions", "model", "settings", "figures", "rating"} == set(
        found
    )
    assert found["format"] == 1
    assert found["quick"] is True
    assert found["machine"].keys() == {"name", "words", "cpu", "cores", "memory_bytes"}
    assert found["versions"].keys() == {"linnet", "llama_cpp_python", "python"}
    assert found["model"]["size_bytes"] == DEMO.stat().st_size
    assert found["settings"]["slots"] == 2
    assert found["rating"].keys() == {"word", "reason", "next"}


def test_every_figure_is_there_or_says_why_it_is_not(run):
    figures = {figure["key"]: figure for figure in json.loads(Path(run[1][-1]).read_text())["figures"]}
    assert list(figures) == list(kinds(TINY))
    may_be_missing = {"energy.joule_per_token", "load.cold_s"}  # no counter here; a file that tests keep in memory
    for key, figure in figures.items():
        if ".4096." in key:
            assert figure["median"] is None
            assert figure["note"] == "not available: the model's context is 2,048 tokens"
        elif figure["median"] is None:
            assert key in may_be_missing
            assert figure["note"].startswith("not available: ")
        else:
            assert figure["low"] <= figure["median"] <= figure["high"]
            assert len(figure["values"]) == 1
            assert 0 <= figure["disturbed"] <= 1


def test_what_an_answer_could_be_at_best_stands_beside_its_speed(run):
    figures = {figure["key"]: figure for figure in json.loads(Path(run[1][-1]).read_text())["figures"]}
    assert [limit["name"] for limit in figures["decode.16.tokens_per_s"]["limits"]] == ["memory", "bare loop"]
    assert [limit["name"] for limit in figures["reading.16.tokens_per_s"]["limits"]] == ["bare loop"]
    assert [limit["name"] for limit in figures["clients.1.each_per_s"]["limits"]] == ["bare loop"]
    assert figures["clients.1.total_per_s"]["limits"] == []  # the reading of the prompts is in it, and in no step
    assert [limit["name"] for limit in figures["limit.bare.1.step_ms"]["limits"]] == ["memory"]


def test_the_table_has_a_line_for_every_figure(run):
    lines = run[1]
    assert "Starting" in lines
    for kind in kinds(TINY).values():
        assert any(kind.title in line for line in lines), kind.title


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_the_figures_of_a_plan_have_titles_of_their_own(plan):
    titles = [(kind.group, kind.title) for kind in kinds(plan).values()]
    assert len(titles) == len(set(titles))
    assert not any("{" in title for _, title in titles)


def test_shares_are_of_the_limit_whether_more_or_less_is_better():
    plan = Plan((64,), (1, 4))
    of = {key: Figure(key, kind.group, kind.title, kind.unit, [1.0]) for key, kind in kinds(plan).items()}
    given = {"limit.read_gb_per_s": 10.0, "limit.bare.1.step_ms": 50.0, "limit.bare.4.step_ms": 100.0}
    given |= {"limit.after.64.step_ms": 50.0, "decode.64.tokens_per_s": 18.0, "clients.4.each_per_s": 5.0}
    given |= {"limit.reading.64.tokens_per_s": 128.0, "reading.64.tokens_per_s": 96.0, "reading.64.first_s": 1.0}
    of |= {key: replace(of[key], values=[value]) for key, value in given.items()}
    header = read_header(DEMO)
    done = with_limits(of, header, plan)
    memory, loop = done["decode.64.tokens_per_s"].limits
    assert loop.value == pytest.approx(20)
    assert loop.share == pytest.approx(0.9)
    assert header.n_bytes / 2 < 10e9 / memory.value < 1.2 * header.n_bytes  # bytes of a token
    assert done["clients.4.each_per_s"].limits[0].share == pytest.approx(0.5)
    assert done["reading.64.tokens_per_s"].limits[0].share == pytest.approx(0.75)
    assert done["reading.64.first_s"].limits[0].share == pytest.approx(0.5)
    (best,) = done["limit.bare.1.step_ms"].limits
    assert best.share == pytest.approx(best.value / 50)


def test_a_limit_that_was_not_measured_is_left_out():
    plan = Plan((64,), (1,))
    figures = {key: Figure(key, kind.group, kind.title, kind.unit, []) for key, kind in kinds(plan).items()}
    figures["decode.64.tokens_per_s"] = replace(figures["decode.64.tokens_per_s"], values=[10.0])
    assert with_limits(figures, read_header(DEMO), plan)["decode.64.tokens_per_s"].limits == []


def test_values_are_marked_that_other_programs_disturbed():
    seconds = iter([0.0, *[5.0] * 100])  # of the processor, taken by others just after the first look
    watch = neighbours.Neighbours(lambda: next(seconds))
    begin = time.perf_counter()
    try:
        busy = watch.disturbed(begin - 0.1, time.perf_counter())
        later = time.perf_counter() + 100
        quiet = watch.disturbed(later, later + 1)
    finally:
        watch.close()
    assert busy
    assert not quiet
    record = Record(ONE, lambda started, _: started == 1)
    values = [Taken("load.warm_s", value, value, value + 1) for value in (1.0, 2.0, 4.0)]
    assert list(record.take(values)) == ["load.warm_s"] * 3
    figure = record.figure("load.warm_s")
    assert (figure.median, figure.low, figure.high, figure.disturbed) == (2.0, 1.0, 4.0, 1)
    assert any("! 1 of 3" in line for line in table([figure]))


def test_what_the_bench_computes_itself_or_has_computed_for_it_disturbs_nothing(monkeypatch):
    def process(own: float, ended: float, *children: SimpleNamespace) -> SimpleNamespace:
        """One that has computed, and whose ended children have."""
        return SimpleNamespace(cpu_times=lambda: (own, 0.0, ended, 0.0, 0.0), children=lambda recursive: list(children))

    times = Times(9.0, 0.0, 1.0, 50.0, 7.0, 0.0, 4.0, 2.0, 9.0, 0.0)  # those of a guest are the user's, too
    monkeypatch.setattr(threads, "allowed", lambda: {0})
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [times, times])
    monkeypatch.setattr(psutil, "Process", lambda: process(1.0, 2.0, process(3.0, 0.5)))
    assert neighbours.others_s() == pytest.approx(9 + 1 + 2 - 1 - 2 - 3 - 0.5)


def test_a_process_that_fails_says_why_in_one_sentence(tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(BenchError, match=r"bad\.gguf cannot be loaded"):
        list(inside.measured("load", path, tmp_path, TINY))


def test_a_value_that_cannot_be_ends_the_bench():
    for value in (math.nan, math.inf, -1.0):
        with pytest.raises(BenchError, match=r"load\.warm_s was measured as"):
            list(Record(ONE, lambda *_: False).take([Taken("load.warm_s", value, 0, 1)]))


def test_what_must_be_known_to_read_a_figure_stands_beside_it():
    record = Record(ONE, lambda *_: False)
    list(record.take([Remark("load.warm_s", "of another model"), Taken("load.warm_s", 1.0, 0, 1)]))
    assert "(of another model)" in list(table([record.figure("load.warm_s")]))[-1]


def test_a_missing_figure_says_why():
    record = Record(ONE, lambda *_: False)
    assert list(record.take([Missing("load.warm_s", "there is no time")])) == []
    figure = record.figure("load.warm_s")
    assert figure.plain()["median"] is None
    assert figure.note == "not available: there is no time"
    assert figure.note in list(table([figure]))[-1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"text": ""}, "without text"),
        ({"n_prompt": 6}, "counted 6 tokens in a prompt of 5"),
        ({"n_tokens": 2}, "An answer of 3 tokens was wanted, and 2 came"),
        ({"n_tokens": 4}, "An answer of 3 tokens was wanted, and 4 came"),
        ({"tokens": [0.1, 0.2, 0.3, 0.4]}, "4 pieces of text came"),
        ({"tokens": [0.1]}, "ended with its first token"),
        ({"reason": ""}, "ended for the reason ''"),
    ],
)
def test_a_wrong_answer_is_no_figure(changes, sentence):
    right = stream.Answer(0.0, [0.1, 0.2, 0.3], 3, 5, "a b c", "length", 0.4)
    assert right.checked(3, 5) is right
    with pytest.raises(stream.WrongAnswerError, match=sentence):
        replace(right, **changes).checked(3, 5)


class Times(NamedTuple):
    """As psutil tells them on Linux."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    irq: float
    softirq: float
    steal: float
    guest: float
    guest_nice: float


class Liar(http.server.BaseHTTPRequestHandler):
    """A server that counts wrong."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        if self.path == "/v1/tokenize":
            self.wfile.write(b'{"tokens": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]}')
            return
        for text in ("one", " two"):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n\n")
        usage = {"prompt_tokens": 3, "completion_tokens": 8}
        self.wfile.write(
            b"data: " + json.dumps({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage}).encode() + b"\n\n"
        )

    def log_message(self, *_):
        """Says nothing."""


def test_a_server_that_counts_wrong_ends_the_bench():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(stream.WrongAnswerError, match="counted 3 tokens in a prompt of 16"):
            list(lengths(f"http://127.0.0.1:{server.server_port}", 2048, replace(TINY, lengths=(16,))))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_wrong_answer_is_said_in_one_sentence(monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise stream.WrongAnswerError("An answer of 3 tokens was wanted, and 2 came.")

    monkeypatch.setattr(bench, "run", fail)
    assert bench.main(["demo"], TINY, tmp_path) == 1
    assert capsys.readouterr().err == "An answer of 3 tokens was wanted, and 2 came.\n"


def test_a_part_that_fails_loses_its_own_figures_and_no_others(monkeypatch, capsys, tmp_path):
    def odd():
        yield Taken("load.warm_s", 1.0, 0, 1)
        raise KeyError("usage")

    record = Record({key: KINDS[key] for key in ("load.warm_s", "load.ready_s")}, lambda *_: False)
    parts = [bench.Part("Loading", ("load.warm_s",), odd()), bench.Part("Again", (), [Taken("load.ready_s", 2.0, 0, 1)])]
    assert bench.follow(record, parts, 0) == {"Loading": "KeyError('usage')"}
    assert record.figure("load.warm_s").note == "not available: KeyError('usage')"
    assert record.figure("load.ready_s").values == [2.0]

    monkeypatch.setattr(bench, "run", lambda *_: (tmp_path / "result.json", {"Loading": "It was odd."}))
    assert bench.main(["demo"], TINY, tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'result.json'}\n"
    assert "Loading: It was odd.\n" in err


def test_a_server_that_ends_says_its_last_words():
    command = [sys.executable, "-c", "raise SystemExit('There is no room.')"]
    with pytest.raises(RuntimeError, match=r"exit code 1\. There is no room\."), stream.serve(command, stream.free_port()):
        pass


def test_a_server_that_is_never_ready_or_does_not_want_to_end_is_not_waited_for(monkeypatch):
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(RuntimeError, match="not ready after 0 s"):
            stream.wait_for(f"http://127.0.0.1:{stream.free_port()}", process, patience_s=0)
        monkeypatch.setattr(stream, "END_S", 0.05)
        stream.end(process)
        assert process.returncode == -9


def test_the_first_text_of_an_answer_is_noticed_once():
    lines = [b'data: {"choices": [{"text": "one"}]}\n', b'data: {"choices": [{"text": "two"}]}\n', b"data: [DONE]\n"]
    response = MagicMock(status=200, __iter__=lambda _: iter(lines))
    seen: list[str] = []
    stream.follow(MagicMock(getresponse=lambda: response), 0, lambda: seen.append("begun"))
    assert seen == ["begun"]


def test_of_two_that_are_compared_each_begins_in_turn():
    count = itertools.count()
    both = [pair(turn, lambda: ("one", next(count)), lambda: ("other", next(count))) for turn in range(2)]
    assert both == [(("one", 0), ("other", 1)), (("one", 3), ("other", 2))]


def test_each_number_of_clients_gets_the_same_tasks(monkeypatch):
    asked = []

    def answer(_url, chats, max_tokens):
        asked.append([chat[-1]["content"] for chat in chats])
        return [stream.Answer(0.0, [0.5, 1.0], max_tokens, 5, "a b", "length", 1.0) for _ in chats]

    monkeypatch.setattr(stream, "ask_all", answer)
    monkeypatch.setattr(stream, "ask", lambda *_: None)
    values = list(clients.clients("", Plan(clients=(1, 8), n_turns=2)))
    questions = [[text.split(" ", 3)[3] for text in together] for together in asked]
    assert [len(together) for together in questions] == [1, 1, 1, 1, 8] * 2
    assert len({text for together in asked for text in together}) == 24, "what was asked before would be known"
    assert [text for (text,) in questions[:4]] * 2 == questions[4]
    assert Remark("clients.8.first_p95_s", "of 16 answers in all turns") in values


@pytest.mark.parametrize(
    ("how", "text", "sentence"), [("new", "yes", "came as 'new' and not as a hit"), ("hit", "no", "with other words")]
)
def test_an_answer_given_before_must_be_a_hit_and_the_same(how, text, sentence):
    body = json.dumps({"id": "2", "choices": [text]}).encode()
    connection: Any = SimpleNamespace(ask=lambda *_: (0.1, how, body))
    with pytest.raises(stream.WrongAnswerError, match=sentence):
        hits.hits(connection, 1, ["yes"])


def test_results_of_other_models_and_of_quick_runs_have_names_of_their_own(tmp_path):
    found = {"date": "2026-11-25T14:00:00Z", "machine": {"name": "2-cores"}, "model": {"name": "Qwen 1.5B (Q4_K)"}}
    assert result.path_of(found, tmp_path).name == "2026-11-25-2-cores-qwen-1.5b-q4-k.json"
    assert result.path_of(found | {"quick": True}, tmp_path).name == "2026-11-25-2-cores-qwen-1.5b-q4-k-quick.json"


def test_a_model_that_is_none_is_refused_in_one_sentence(capsys, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and no more")
    for name in ("no-such-model", str(tmp_path / "bad.gguf")):
        assert bench.main([name]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_model_used_last_is_measured_or_the_newest_or_a_shape(monkeypatch, tmp_path):
    shape, old, new = (tmp_path / f"{name}.gguf" for name in ("shape", "old", "new"))
    for path in (shape, old, new):
        path.write_bytes(b"GGUF")
    monkeypatch.setattr(bench, "CACHE", tmp_path)
    monkeypatch.setattr(bench, "SHAPE_FILE", shape)
    monkeypatch.setattr(store, "installed", lambda *_: {"demo": DEMO})
    assert bench.default() == shape
    monkeypatch.setattr(store, "installed", lambda *_: {"new": new, "old": old, "demo": DEMO})
    times = new.stat()
    old_times = (times.st_atime - 100, times.st_mtime - 100)
    os.utime(old, old_times)
    assert bench.default() == new
    (tmp_path / store.LAST).write_text(str(old))
    assert bench.default() == old


def test_a_slow_model_gets_fewer_turns_but_one_at_least():
    assert list(Plan(n_turns=3).turns()) == [0, 1, 2]
    assert list(Plan(n_turns=3, turns_s=0).turns()) == [0]


def test_a_counter_of_energy_that_begins_anew_is_read_right(tmp_path):
    assert Meter.find(tmp_path) is None
    for i, value in enumerate((900, 10)):
        package = tmp_path / f"intel-rapl:{i}"
        package.mkdir()
        (package / "energy_uj").write_text(str(value))
        (package / "max_energy_range_uj").write_text("1000")
    meter = Meter.find(tmp_path)
    assert meter
    before = meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("60")
    assert meter.joules(before, meter.read()) == pytest.approx((150 + 50) / 1e6)


def test_the_machine_is_said_in_words_that_make_a_file_name(monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: "Intel Xeon E5-2690 v4")
    said = machine.machine()
    assert said["name"].endswith("intel-xeon-e5-2690-v4")
    assert "Intel Xeon E5-2690 v4" in said["words"]


def test_numbers_are_no_longer_than_they_are_true():
    assert [short(value) for value in (1234.5, 45.67, 4.567, 0.012345)] == ["1,234", "45.7", "4.57", "0.0123"]
    figure = Figure("load.warm_s", "", "", "s", [1 / 3])
    assert figure.plain()["values"] == [0.33333]
    assert isinstance(KINDS["load.warm_s"], Kind)
