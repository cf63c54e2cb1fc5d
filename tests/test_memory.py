"""engine.memory: whether a model fits, known from its header alone."""

import dataclasses
import re
import struct
from pathlib import Path

import pytest

from bench import shapes
from engine import cgroup, memory
from engine.request import Config
from tests.conftest import DEMO


def config(n_ctx: int | None = None, n_slots: int = 4, kv_type: str = "f16") -> Config:
    return Config(str(DEMO), n_ctx, n_slots, 1, kv_type=kv_type)


def test_the_header_says_what_a_model_takes(tmp_path):
    need = memory.need(config())
    assert need
    assert (need.n_ctx, need.kv_bytes) == (2048, 4 * 2048 * 2 * 6 * 256 * 2)
    assert need.weights_bytes == DEMO.stat().st_size
    shapes.make(shapes.SHAPES["small"], tmp_path / "small.gguf")
    assert memory.need(dataclasses.replace(config(), model_path=str(tmp_path / "small.gguf")))


def test_what_fits_passes():
    memory.check(config())


def test_what_does_not_fit_is_refused_with_the_numbers_and_the_largest_context_that_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 300 * 10**6)
    with pytest.raises(memory.DoesNotFitError) as refusal:
        memory.check(config(50_000))
    message = str(refusal.value)
    assert "6 MB of weights" in message
    assert "1,229 MB for 4 x 50,000 tokens" in message
    assert "300 MB are free" in message
    (largest,) = re.findall(r"A --ctx of (\d+) would fit", message)
    memory.check(config(int(largest)))
    with pytest.raises(memory.DoesNotFitError):
        memory.check(config(int(largest) + 256))
    memory.check(config(int(largest), kv_type="q8_0"))


def test_a_model_larger_than_the_memory_fits_with_no_context(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    with pytest.raises(memory.DoesNotFitError, match="No context would fit"):
        memory.check(config())


def test_a_containers_limit_counts_without_its_file_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    assert memory.available() > 0
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 150000\nactive_file 50000\n")
    assert memory.available() == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() > 500_000
    service = tmp_path / "system.slice/linnet.service"
    service.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/system.slice/linnet.service\n")
    (service / "memory.max").write_text("300000\n")
    (service / "memory.current").write_text("100000\n")
    (service / "memory.stat").write_text("anon 1\n")
    assert memory.available() == 200_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"GGUF" + b"\xff" * 100,
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60),
        DEMO.read_bytes()[:200],
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**62) + b"x" * 50,
    ],
)
def test_a_file_that_is_no_gguf_is_left_to_the_loader(tmp_path: Path, data):
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    other = dataclasses.replace(config(), model_path=str(path))
    assert memory.need(other) is None
    memory.check(other)
