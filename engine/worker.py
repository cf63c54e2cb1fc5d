"""The worker process: loads the model, measures what its policies need, and runs the loop.

    python -m engine.worker [DESCRIPTOR]     commands come in on standard input, events go out on standard output

The words are those of engine.request; the descriptor is that of the shared heartbeat (engine.beat). The worker knows
nothing of HTTP: when its input ends, whoever started it is gone, and so is the worker.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from engine import request as words
from engine import threads
from engine.beat import Beat
from engine.costs import Costs
from engine.governor import Governor, Others
from engine.loop import DRAFT_MAX, Loop
from engine.native.model import Model, ModelError, build
from engine.prefix import Prefixes
from engine.prompt import PromptError
from engine.scheduler import SLICE_MAX
from engine.states import States

log = logging.getLogger("engine")
FLUSH_S = 1.5  # for states still to be written when the worker ends
END_BYTES = 2**20  # at both ends of a model file, to tell it from another of the same size


def speak(out: BinaryIO, word: words.Word) -> None:
    """Sends a word to the front; without one to hear it there is nothing left to do."""
    try:
        out.write(words.dump(word))
        out.flush()
    except BrokenPipeError:
        os._exit(0)


def listen(source: BinaryIO, inbox: queue.SimpleQueue[words.Command], states: list[States]) -> None:
    """Reads commands for the main thread. At the end of input the process ends soon, even in the middle of a step."""
    try:
        for line in source:
            inbox.put(words.load(line))
    finally:  # also when the front died in the middle of a line
        for some in states:
            some.flush(FLUSH_S)
        os._exit(0)


def identity(config: words.Config) -> str:
    """A name for all that a computed state depends on. Hashing the whole file would take longer than loading it."""
    path = Path(config.model_path)
    status = path.stat()
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} {config.kv_type} {build()}".encode())
    with path.open("rb") as file:
        digest.update(file.read(END_BYTES))
        file.seek(max(0, status.st_size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()[:32]


def measured_costs(model: Model, config: words.Config, key: str) -> Costs:
    """What steps cost with this model on these CPUs: known from an earlier start, or measured now."""
    cpus = f"{sorted(threads.allowed())} {config.n_threads}"
    path = None
    if config.cache_dir:
        name = hashlib.sha256(f"{key} {cpus}".encode()).hexdigest()[:32]
        path = Path(config.cache_dir) / "costs" / f"{name}.json"
        if costs := Costs.read(path):
            return costs
    costs = Costs.measure(model.seconds, min(model.batch.size, model.n_ctx * config.n_slots))
    if path:
        costs.save(path)
    return costs


def main() -> None:
    """Loads the model named by the first command, says so, and works."""
    # Ctrl-C reaches the whole terminal, a service manager's SIGTERM the whole group; the front decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s engine: %(message)s", datefmt="%H:%M:%S")
    # Native code may print: that goes to the log, and only events go where events are expected.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    send = functools.partial(speak, out)
    source = sys.stdin.buffer
    config: words.Config = words.load(source.readline())
    beat = Beat(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    inbox: queue.SimpleQueue[words.Command] = queue.SimpleQueue()
    states: list[States] = []
    threading.Thread(target=listen, args=(source, inbox, states), daemon=True).start()
    try:
        model = Model(config, config.n_slots + DRAFT_MAX + SLICE_MAX, config.n_slots + DRAFT_MAX)
        key = identity(config)
        costs = measured_costs(model, config, key)
        folder = Path(config.cache_dir) / "states" if config.cache_dir else None
        states.append(States(folder, key, config.disk_bytes if model.keeps_states else 0))
        prefixes = Prefixes(config.ram_bytes, states[0])
        governor = Governor(config.n_threads, costs, Others())
        loop = Loop(model, config, (costs, governor, prefixes, beat), inbox, send)
    except (ModelError, PromptError) as error:
        send(words.LoadFailed(str(error)))
        os._exit(1)  # the listening thread could not be stopped otherwise
    send(
        words.Ready(
            model.n_ctx, model.n_ctx_train, model.n_params, model.size_bytes, model.description, build(), model.load_s
        )
    )
    loop.run()


if __name__ == "__main__":
    main()
