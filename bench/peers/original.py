"""The original's own stack as a peer: transformers, float32, the same shape, in a process and an environment of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from bench import stream
from bench.peers import build
from bench.peers.peer import AbsentError
from bench.peers.scenarios import Sample
from engine.header import Header, HeaderError, read_header

NAME = "transformers"
N_ANSWER = 24  # tokens: it writes one or two a second
FLOAT_BYTES = 4
ROOM = 1.2  # times the weights: what else it needs


@dataclass(frozen=True)
class Original:
    """The process, once its model is made."""

    asks: IO[str]
    tells: IO[str]

    def answer(self, n_prompt: int) -> Sample:
        """tokens/s of one answer to a prompt of so many tokens, its reading included. Raises RuntimeError."""
        self.asks.write(f"{json.dumps([n_prompt, N_ANSWER])}\n")
        self.asks.flush()
        n_tokens, seconds = json.loads(self.tells.readline() or "[0, 1]")
        if n_tokens != N_ANSWER:
            raise RuntimeError(f"{NAME} gave {n_tokens} of {N_ANSWER} tokens; build/peers/{NAME}.log tells why.")
        return Sample(n_tokens / seconds, n_prompt, n_tokens)


@contextmanager
def run(model: Path, n_threads: int) -> Iterator[Original]:
    """Runs it until the block ends. Raises AbsentError, RuntimeError."""
    shape = json.dumps(shape_of(model))
    try:
        build.environment()
    except build.BuildError as error:
        raise AbsentError(str(error)) from error
    command = [str(build.PYTHON), "-m", "bench.peers.baseline", shape, str(n_threads)]
    log, pipe = build.HOME / f"{NAME}.log", subprocess.PIPE
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=stream.ROOT, stdin=pipe, stdout=pipe, stderr=file, text=True) as process,
    ):
        if not process.stdin or not process.stdout or not process.stdout.readline():
            raise RuntimeError(f"{NAME} did not start; {log.relative_to(stream.ROOT)} tells why.")
        try:
            yield Original(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.kill()  # it has nothing to save


def shape_of(path: Path) -> dict[str, int | bool]:
    """The numbers that decide its speed, by LlamaConfig's names. Raises AbsentError when they are not there or too large."""
    try:
        header = read_header(path)
    except HeaderError as error:
        raise AbsentError(str(error)) from error
    n_bytes, free = header.n_parameters * FLOAT_BYTES * ROOM, psutil.virtual_memory().available
    if n_bytes > free:
        raise AbsentError(f"{NAME} would need {n_bytes / 1e9:.0f} GB of memory in float32; {free / 1e9:.0f} GB are free.")
    return config(header)


def config(header: Header) -> dict[str, int | bool]:
    """LlamaConfig's fields. Raises AbsentError when the header does not say one."""
    numbers = {
        "vocab_size": header.n_vocab,
        "hidden_size": header.n_embd,
        "intermediate_size": header.of_model("feed_forward_length"),
        "num_hidden_layers": header.n_layers,
        "num_attention_heads": header.n_heads,
        "num_key_value_heads": header.n_kv_heads,
        "head_dim": header.key_length,
        "max_position_embeddings": header.n_ctx,
    }
    missing = [name for name, number in numbers.items() if not number]
    if missing:
        raise AbsentError(f"The model's file does not say its {', '.join(missing)}.")
    tied = all(tensor.name != "output.weight" for tensor in header.tensors)
    return {name: number for name, number in numbers.items() if number} | {"tie_word_embeddings": tied}
