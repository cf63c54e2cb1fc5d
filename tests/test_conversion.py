"""The conversion as a program: how much memory it takes, what is left when it is interrupted, what it shows."""

from __future__ import annotations

import fcntl
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convert.__main__ import main
from convert.conversion import convert
from convert.errors import ConvertError
from engine.header import read_header
from tests.checkpoints.copies import FOLDER as CHECKPOINTS
from tests.checkpoints.copies import NO_BIAS, copied, grow
from tests.conftest import ROOT

N_LAYERS, N_FF = 12, 16384


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A checkpoint of 150 MB in tensors of 4 MB."""
    folder = tmp_path_factory.mktemp("large") / "checkpoint"
    source = copied("llama-spm", folder, num_hidden_layers=N_LAYERS, intermediate_size=N_FF, **NO_BIAS)
    grow(source, N_LAYERS, N_FF)
    return source


def test_no_more_than_one_tensor_is_in_memory(large, tmp_path):
    script = "import resource, sys\nfrom convert.__main__ import main\nassert main(sys.argv[1:]) == 0\n"
    script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    peaks: list[int] = []
    for folder in (CHECKPOINTS / "llama-spm", large):
        command = [
            sys.executable,
            "-c",
            script,
            str(folder),
            "--quant",
            "F16",
            "--out",
            str(tmp_path / f"{len(peaks)}.gguf"),
        ]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout.split()[-1]) * 1024)  # bytes
    assert (tmp_path / "1.gguf").stat().st_size > 75e6
    assert peaks[1] - peaks[0] < 30e6, "the largest tensor has 4 MB, all of them 150 MB"


@pytest.mark.parametrize("moment", [".f16.part", "-Q4_K_M.gguf.part"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_leaves_nothing_and_can_be_repeated(moment, number, large, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "convert", str(large), "--out", str(out / "x-Q4_K_M.gguf")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as child:
        while child.poll() is None and not any(path.name.endswith(moment) for path in out.iterdir()):
            time.sleep(0.002)
        child.send_signal(number)
        said = child.communicate(timeout=20)[1].decode()
    assert child.returncode == 130 and "Traceback" not in said, said
    assert list(out.iterdir()) == []
    if moment == ".f16.part" and number == signal.SIGINT:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert [path.name for path in out.iterdir()] == ["x-Q4_K_M.gguf"]
        assert {"Q4_K", "Q6_K"} <= set(read_header(out / "x-Q4_K_M.gguf").mix)


def test_inspecting_shows_what_a_file_is(tmp_path, capsys):
    convert(CHECKPOINTS / "llama-spm", tmp_path / "x.gguf", "F16", "a \x1b[31m bird")
    assert main(["inspect", str(tmp_path / "x.gguf")]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    for row in (
        "architecture +llama",
        "parameters +115,904",
        "BOS token +1 <s>",
        "chat template +yes",
        "memory at 512 +131 kB of context in F16, [0-9.]+ MB with weights and buffers",
    ):
        assert re.search(row, shown), shown
    assert main(["inspect", str(Path(__file__))]) == 1
    assert re.fullmatch(r"\S+ is not a GGUF file\.\n", capsys.readouterr().err)


def test_two_that_make_the_same_file_do_not_mix(tmp_path):
    out = tmp_path / "x.gguf"
    with (tmp_path / "x.gguf.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConvertError, match="being made by another process"):
            convert(CHECKPOINTS / "llama-spm", out, "F16", "x")
        assert not out.exists()
    convert(CHECKPOINTS / "llama-spm", out, "F16", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
