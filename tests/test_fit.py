"""models.fit: what is needed, how fast it would be, which one to take. Only the last test measures anything."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import shapes
from engine import memory, threads
from engine.fields import TYPES
from engine.header import Header, Tensor, read_header
from engine.request import Config
from models import __main__ as command
from models import fit, store
from models.catalog import catalog
from models.fit import Fit, Machine, Row, Verdict
from tests.conftest import DEMO

FAST = Machine({"Q4_K": 30e9, "Q6_K": 21e9, "Q8_0": 40e9, "F16": 40e9}, 1e-5, 2)
BLOCKS = {name: (n, n_bytes) for name, n, n_bytes in TYPES.values()}
# R1-Distill-Qwen-1.5B but for the small vectors that its queries, keys and values are shifted by.
QWEN = shapes.Shape(151936, 1536, 28, 12, 2, 8960, 131072)


def header_of(shape: shapes.Shape) -> Header:
    """As the file of shapes.make would have it, which is a gigabyte."""
    tensors = []
    for name, (rows, columns), quant in shapes.tensors(shape):
        n, n_bytes = BLOCKS[quant.name]
        tensors.append(Tensor(name, (columns, rows), quant.name, 0, rows * columns // n * n_bytes))
    return Header(3, {"general.architecture": "llama"}, tensors, sum(tensor.n_bytes for tensor in tensors))


def needed(n_bytes: int) -> memory.Need:
    return memory.Need(n_bytes, 0, 0, 1, 4096)


def judged(tokens_per_s: float | None, n_bytes: int = 10**9, available: int = 2 * 10**9) -> Fit:
    return Fit("llama", needed(n_bytes), available, tokens_per_s)


def row(name: str, tokens_per_s: float | None, n_parameters: int, path: Path | None = None) -> Row:
    return Row(name, path, 10**9, n_parameters, "", judged(tokens_per_s))


def test_a_token_takes_its_weights_its_layers_and_a_moment():
    # 3e9 / 30e9 + 2.1e9 / 21e9 = 0.2 s; 20 layers of 10 multiplies of 10 us = 2 ms; 0.2 ms besides
    assert 1 / FAST.tokens_per_s({"Q4_K": 3e9, "Q6_K": 2.1e9}, 20) == pytest.approx(0.2022)


def test_types_that_were_not_measured_are_no_faster_than_memory_and_no_easier_than_the_hardest():
    # 21e9 / (210 / 256) = 25.6e9 weights a second
    assert FAST.rate("Q5_K") == pytest.approx(25.6e9 * 176 / 256)
    assert FAST.rate("F32") == FAST.read_bytes_per_s == 40e9
    assert FAST.rate("a type of tomorrow") == pytest.approx(25.6e9)


@pytest.mark.parametrize(
    ("rates", "op_s", "n_threads"),
    [
        ({}, 1e-5, 1),
        ({"Q6_K": 0.0}, 1e-5, 1),
        ({"Q6_K": 1e9}, math.nan, 1),
        ({"Q6_K": math.inf}, 1e-5, 1),
        ({"Q6_K": 1e9}, 1e-5, 0),
    ],
)
def test_measures_that_make_no_sense_are_refused(rates, op_s, n_threads):
    with pytest.raises(ValueError):
        Machine(rates, op_s, n_threads)


def test_embeddings_are_not_read_unless_they_are_the_outputs_weights_and_few_experts_are():
    embedding, output = (Tensor(name, (256, 10), "Q4_K", 0, 1440) for name in (fit.EMBEDDING, fit.OUTPUT))
    experts = Tensor("blk.0.ffn_up_exps.weight", (256, 10, 8), "F16", 0, 40960)
    values = {"general.architecture": "a", "a.expert_count": 8, "a.expert_used_count": 2}
    assert fit.bytes_read(Header(3, values, [embedding, output, experts], 0)) == {"Q4_K": 1440, "F16": 10240}
    assert fit.bytes_read(Header(3, {}, [embedding], 0)) == {"Q4_K": 1440}


@pytest.mark.parametrize(("name", "shape"), [("tinyllama", shapes.SHAPES["tinyllama"]), ("r1-qwen-1.5b", QWEN)])
def test_the_catalog_tells_the_same_as_the_file_would(name, shape):
    header, entry = header_of(shape), catalog()[name]
    assert header.n_bytes == pytest.approx(entry.bytes, rel=0.01)
    from_header, from_entry = fit.bytes_read(header), fit.bytes_of_entry(entry)
    for kind in ("Q4_K", "Q6_K"):
        assert from_entry[kind] == pytest.approx(from_header[kind], rel=0.1)
    speed = FAST.tokens_per_s(from_entry, entry.layers)
    assert speed == pytest.approx(FAST.tokens_per_s(from_header, shape.n_layers), rel=0.05)


def test_the_catalog_needs_the_same_memory_as_the_file_would(tmp_path):
    shape = shapes.SHAPES["small"]
    path = tmp_path / "small-Q4_K_M.gguf"
    shapes.make(shape, path)
    sizes: dict[str, Any] = {
        "embedding": shape.n_embd,
        "feed_forward": shape.n_ff,
        "vocabulary": shape.n_vocab,
        "context": shape.n_ctx,
    }
    sizes |= {"layers": shape.n_layers, "kv_heads": shape.n_kv_heads, "head_size": shape.n_embd // shape.n_heads}
    entry = dataclasses.replace(catalog()["tinyllama"], file=path.name, bytes=path.stat().st_size, **sizes)
    for n_ctx, n_slots, kv_type in ((None, 4, "f16"), (512, 1, "q8_0"), (9999, 2, "f16")):
        config = Config(str(path), n_ctx, n_slots, 1, kv_type=kv_type)
        assert fit.need_of_entry(entry, config) == memory.need(config)


def test_other_mixes_are_told_by_the_files_name_and_shared_embeddings_by_the_parameters():
    entry = catalog()["tinyllama"]
    embeddings = entry.vocabulary * entry.embedding
    plain = fit.bytes_of_entry(dataclasses.replace(entry, file="tiny.Q8_0.gguf"))
    assert plain == {"Q6_K": 0.0, "Q8_0": entry.bytes - embeddings * 34 / 32}
    shared = dataclasses.replace(entry, file="tiny-BF16.gguf", parameters=entry.parameters - embeddings)
    assert fit.bytes_of_entry(shared) == {"Q6_K": 0.0, "BF16": entry.bytes}


@pytest.mark.parametrize(
    ("tokens_per_s", "n_bytes", "verdict", "needs_yes"),
    [
        (10.0, 2 * 10**9, "runs well", False),
        (9.99, 1, "slow", False),
        (1.0, 1, "slow", False),
        (0.99, 1, "too slow", True),
        (100.0, 2 * 10**9 + 1, "does not fit", True),
        (None, 2 * 10**9 + 1, "does not fit", True),
        (None, 1, "unknown", False),
    ],
)
def test_the_borders_of_the_verdicts(tokens_per_s, n_bytes, verdict, needs_yes):
    found = judged(tokens_per_s, n_bytes)
    assert (found.verdict, found.needs_yes) == (verdict, needs_yes)


def test_the_user_is_told_in_a_sentence():
    assert judged(0.4).sentence == "llama would say about 0.4 tokens a second here."
    assert judged(30.7).sentence == "llama would say about 31 tokens a second here."
    assert judged(9.0, 6_100_000_000, 3_900_000_000).sentence == "llama needs 6.1 GB and 3.9 GB are free: it does not fit."
    assert judged(None).sentence == "How llama would run here is not known."


def test_the_largest_that_runs_well_is_recommended_and_the_demo_only_alone():
    demo, small, large, slow = row("demo", 900, 99, DEMO), row("s", 40, 1), row("l", 10, 7), row("x", 9.9, 70)
    assert fit.recommended([demo, small, large, slow]) is large
    assert fit.recommended([demo, slow]) is demo
    assert fit.recommended([slow, row("u", None, 500)]) is None


def test_a_file_of_the_catalog_is_one_row_and_a_damaged_one_is_unknown(tmp_path):
    shapes.make(shapes.SHAPES["small"], tmp_path / catalog()["tinyllama"].file)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    rows = {row.name: row for row in fit.fits(FAST, Config("", 512, 1, 1), tmp_path)}
    assert list(rows) == [*catalog(), "broken", "demo"]
    assert rows["tinyllama"].path and rows["tinyllama"].size_bytes < 10**8
    assert rows["broken"].fit.verdict is Verdict.UNKNOWN and not rows["r1-llama-8b"].path
    assert sum(row.recommended for row in rows.values()) <= 1
    larger = fit.fits(FAST, Config("", 1024, 4, 1), tmp_path)
    assert all(
        new.fit.need and new.fit.need.kv_bytes >= 4 * old.fit.need.kv_bytes
        for new, old in zip(larger, rows.values(), strict=True)
        if old.fit.need
    )


WORDS = {"multiply_bytes_per_s": FAST.multiply_bytes_per_s, "op_s": FAST.op_s, "others_cores": 0.0}


@pytest.fixture
def measured(monkeypatch):
    """How often it was measured; `answer` is what comes of it."""

    class Measured:
        n = 0
        answer: Any = WORDS

        def __call__(self, _):
            self.n += 1
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    measured = Measured()
    monkeypatch.setattr(fit, "_measured", measured)
    return measured


def test_the_machine_is_measured_once_and_says_so(measured, tmp_path):
    said: list[str] = []
    first = fit.machine(tmp_path / "cache", said.append)
    assert fit.machine(tmp_path / "cache", said.append) == first
    assert first and first.multiply_bytes_per_s == FAST.multiply_bytes_per_s
    assert (measured.n, len(said)) == (1, 1)
    assert fit.machine(None) and measured.n == 2


def test_other_cpus_and_another_llama_cpp_are_measured_again(measured, tmp_path, monkeypatch):
    fit.machine(tmp_path)
    monkeypatch.setattr(threads, "count", lambda: 77)
    fit.machine(tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.1")
    fit.machine(tmp_path)
    monkeypatch.setattr(fit, "VERSION", 1000)
    fit.machine(tmp_path)
    assert measured.n == 4 and len(list((tmp_path / "speed").iterdir())) == 4


@pytest.mark.parametrize("change", ["text", "key", "value", "list", "owner"])
def test_a_file_of_a_stranger_or_one_that_makes_no_sense_is_not_believed(measured, tmp_path, monkeypatch, change):
    fit.machine(tmp_path)
    (path,) = (tmp_path / "speed").iterdir()
    words = json.loads(path.read_text())
    changed = {"text": "no JSON", "list": "[]", "owner": path.read_text()}
    changed |= {"key": json.dumps(words | {"key": "other"}), "value": json.dumps(words | {"op_s": "1"})}
    path.write_text(changed[change])
    if change == "owner":
        monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert fit.machine(tmp_path) and measured.n == 2


def test_what_was_measured_beside_other_programs_holds_only_now(measured, tmp_path):
    measured.answer = WORDS | {"others_cores": 1.0}
    assert fit.machine(tmp_path) and fit.machine(tmp_path) and measured.n == 2


@pytest.mark.parametrize(
    "answer", [OSError("no process"), subprocess.TimeoutExpired("x", 1), {}, [], {"op_s": 1}, WORDS | {"op_s": -1.0}]
)
def test_where_measuring_fails_the_speed_is_unknown_and_the_memory_is_told(measured, tmp_path, answer, capsys):
    measured.answer = answer
    assert fit.machine(tmp_path) is None and not (tmp_path / "speed").exists()
    assert command.main(["--cache-dir", str(tmp_path), "--ctx", "512", "--slots", "1"]) == 0
    assert "unknown" in capsys.readouterr().out


def test_the_table_has_a_line_for_each_model_marks_one_and_says_how_to_get_it(measured, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 5 * 10**9)
    (tmp_path / ("long\x1bname" * 20 + ".gguf")).write_bytes(b"GGUF")
    assert command.main(["--cache-dir", str(tmp_path / "cache"), "--models-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == "Measuring how fast this machine is: two seconds, once.\n"
    first, head, *lines, last = said.out.splitlines()
    assert "5.0 GB" in first and "--slots 4" in first and "needs GB" in head
    assert all(len(line) <= command.WIDTH and line.isprintable() for line in (first, head, *lines, last))
    assert [line.split()[0] for line in lines[:2]] == ["tinyllama", "*"]
    assert "does not fit" in lines[3] and " - " in lines[3] and lines[-1].split()[:2] == ["demo", "yes"]
    assert last == "Recommended (*): r1-qwen-1.5b. Fetch it: make download-gguf MODEL=r1-qwen-1.5b"
    assert command.main(["--cache-dir", str(tmp_path / "cache"), "--models-dir", str(tmp_path)]) == 0
    assert not capsys.readouterr().err and measured.n == 1


def test_advice_for_what_is_here_and_for_nothing():
    here = dataclasses.replace(row("demo", 900, 9, store.DEMO), recommended=True)
    assert command.advice([here]).endswith('make run ARGS="--model demo"')
    assert "make download-gguf" in command.advice([row("slow", 2, 9)])


@pytest.mark.parametrize("arguments", [["--ctx", "1"], ["--slots", "x"], ["--nonsense"], ["a"]])
def test_a_wrong_option_is_told_in_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ending:
        command.main(arguments)
    assert ending.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_real_measurement_gives_speeds_that_make_sense(tmp_path):
    machine = fit.machine(tmp_path)
    assert machine and set(machine.multiply_bytes_per_s) == {"Q4_K", "Q6_K", "Q8_0", "F16"}
    found = fit.fit(Config(str(DEMO), 512, 1, machine.n_threads), machine)
    assert found.need == memory.need(Config(str(DEMO), 512, 1, 1))
    assert found.tokens_per_s and 0 < found.tokens_per_s < 1 / fit.STEP_S
    assert read_header(DEMO).n_bytes > sum(fit.bytes_read(read_header(DEMO)).values())
