"""What starting, memory, vanished clients and q8_0 cost.

python -m bench.bounds MODEL.gguf     the last line is JSON
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import gguf

from bench import clients, stream
from bench.steps import again_with_environment
from engine import memory, threads
from engine.header import read_header
from engine.native.model import Model
from engine.request import Config
from engine.scheduler import step_size
from engine.worker import identity, measured_costs

N_TURNS = 3
N_CLIENTS = 200
N_SLOTS, N_CTX = 4, 2048


def warm_up(path: str) -> dict[str, float]:
    """Seconds that measuring the costs takes at the first start, and at the next."""
    config = Config(path, N_CTX, N_SLOTS, threads.count())
    model = Model(config, *step_size(config))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        config = Config(path, N_CTX, N_SLOTS, threads.count(), cache_dir=folder)
        for _ in range(2):
            started = time.perf_counter()
            measured_costs(model, config, identity(config, model))
            seconds.append(time.perf_counter() - started)
    return {"first_s": seconds[0], "next_s": seconds[1]}


def kv_types(path: str) -> dict[str, float]:
    """How much longer q8_0 takes than f16 by turns: a step of one after 1,000 tokens, and reading those."""
    configs = {name: Config(path, N_CTX, 1, threads.count(), kv_type=name) for name in ("f16", "q8_0")}
    models = {name: Model(config, *step_size(config)) for name, config in configs.items()}
    ratios = []
    for _ in range(N_TURNS):
        times = {name: _read_and_step(model) for name, model in models.items()}
        ratios.append([b / a for a, b in zip(times["f16"], times["q8_0"], strict=True)])
    reading, step = (statistics.median(values) for values in zip(*ratios, strict=True))
    return {"reading": reading, "step": step}


def _read_and_step(model: Model) -> tuple[float, float]:
    started = time.perf_counter()
    for start in range(0, 1000, 125):
        model.batch.clear()
        model.batch.add(0, [100] * 125, start, 1)
        model.decode()
    reading_s = time.perf_counter() - started
    steps = []
    for position in range(1000, 1030):
        model.batch.clear()
        model.batch.add(0, [100], position, 1)
        started = time.perf_counter()
        model.decode()
        steps.append(time.perf_counter() - started)
    model.cut(0, 0)
    return reading_s, statistics.median(steps)


def used(url: str, path: str) -> dict[str, float]:
    """MB of front and worker together, and what of it is neither weights nor context."""
    stream.ask_all(url, [[{"role": "user", "content": stream.text(40, i)}] for i in range(N_SLOTS)], 16)
    server = clients.front(url)
    total = sum(p.memory_full_info().pss for p in (server, *server.children()))
    mapped = sum(m.pss for p in server.children() for m in p.memory_maps() if m.path == str(Path(path).resolve()))
    kv = (read_header(Path(path)).kv_elements or 0) * memory.KV_BYTES["f16"] * N_SLOTS * N_CTX
    return {"total_mb": total / 1e6, "beside_mb": (total - mapped - _rearranged(path) - kv) / 1e6}


def _rearranged(path: str) -> int:
    """Bytes of weights that llama.cpp copies into an order its kernels like: Q4_K and Q4_0 matrices."""
    quants = (gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q4_0)
    tensors = gguf.GGUFReader(path).tensors
    return sum(int(t.n_bytes) for t in tensors if t.tensor_type in quants and not t.name.startswith("token_embd"))


def vanish(url: str) -> float:
    """Seconds to the first text of a request that comes when 200 others have just lost their clients."""
    chats = [[{"role": "user", "content": stream.text(20, f"{i} {time.time_ns()}")}] for i in range(N_CLIENTS)]
    connections = [stream.begin(url, chat, 1000) for chat in chats]
    time.sleep(2)  # some of them run now, the others wait
    for connection in connections:
        connection.close()
    return stream.ask(url, [{"role": "user", "content": "hi"}], 2).first_s


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    (path,) = arguments
    options = ("--no-cache", "--slots", str(N_SLOTS), "--ctx", str(N_CTX), "--max-queue", str(N_CLIENTS))
    with stream.linnet(path, *options) as url:
        results = {"memory": used(url, path), "vanish_s": statistics.median(vanish(url) for _ in range(N_TURNS))}
    print(results, flush=True)
    results |= {"warm_up": warm_up(path), "q8_0_against_f16": kv_types(path)}
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    again_with_environment("bench.bounds", os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
