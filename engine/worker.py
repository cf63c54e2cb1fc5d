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
import time
from pathlib import Path
from typing import BinaryIO

from engine import memory, threads
from engine import request as words
from engine.beat import Beat
from engine.costs import Costs
from engine.governor import BUSY, Governor, Others
from engine.loop import Loop
from engine.native.model import Model, ModelError, build
from engine.prefix import Prefixes
from engine.prompt import PromptError
from engine.scheduler import step_size
from engine.states import States

log = logging.getLogger("engine")
RAM_PART = 4  # of the free memory at most every so many-th byte is for prefixes
FLUSH_S = 1.5  # for states still to be written when the worker ends
ORIGINAL_CONTEXT = ".rope.scaling.original_context_length"
END_BYTES = 2**20  # at both ends of a model file, to tell it from another of the same size


def speak(out: BinaryIO, said: list[words.Word]) -> None:
    """Sends words to the front; without one to hear them there is nothing left to do."""
    try:
        out.write(b"".join(map(words.dump, said)))
        out.flush()
    except BrokenPipeError:
        os._exit(0)


def listen(source: BinaryIO, inbox: queue.SimpleQueue[words.Command], states: list[States]) -> None:
    """Reads commands for the main thread. At the end of input the process ends, at the latest after FLUSH_S."""
    try:
        for line in source:
            inbox.put(words.load(line))
    finally:  # also when the front died in the middle of a line
        if states:  # the loop has begun: what it knows is worth writing, but not worth waiting for longer
            inbox.put(words.End())
            time.sleep(FLUSH_S)
        os._exit(0)


def identity(config: words.Config, model: Model) -> str:
    """A name for all that a computed state depends on. Hashing the whole file would take longer than loading it."""
    path = Path(config.model_path)
    status = path.stat()
    facts = f"{status.st_size} {status.st_mtime_ns} {config.kv_type} {build()}"
    if any(key.endswith(ORIGINAL_CONTEXT) for key in model.vocabulary.metadata):
        # Two sets of rotation factors: the size of the context decides which of them is used.
        facts += f" {model.n_ctx * config.n_slots}"
    digest = hashlib.sha256(facts.encode())
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
    others = Others()
    costs = Costs.measure(model.seconds, min(model.batch.size, model.n_ctx * config.n_slots))
    if path and others() < BUSY:  # else it holds today, and is measured again the next time
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
        file = words.stamp(config.model_path)  # before it is loaded: what is loaded is this or something newer
        model = Model(config, *step_size(config))
        key = identity(config, model)
        costs = measured_costs(model, config, key)
        folder = Path(config.cache_dir) / "states" if config.cache_dir else None
        states.append(States(folder, key, config.disk_bytes if model.keeps_states else 0))
        prefixes = Prefixes(min(config.ram_bytes, memory.available() // RAM_PART), states[0])
        governor = Governor(config.n_threads, costs, Others())
        loop = Loop(model, config, (costs, governor, prefixes, beat), inbox, send)
    except (ModelError, PromptError) as error:
        send([words.LoadFailed(str(error))])
        os._exit(1)  # the listening thread could not be stopped otherwise
    facts = (
        model.n_ctx,
        model.n_ctx_train,
        model.n_params,
        model.size_bytes,
        model.description,
        build(),
        model.load_s,
        file,
    )
    send([words.Ready(*facts)])
    loop.run()
    states[0].flush(FLUSH_S)
    prefixes.close()
    beat.close()
    os._exit(0)


if __name__ == "__main__":
    main()
