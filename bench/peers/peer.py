"""The servers that Linnet is compared with, each started with the same model, slots, context and threads.

Those of llama.cpp are made by bench.peers.build; ollama and llamafile take part where they are installed. Each is left as
its makers set it up, but for what must be the same for all and what would only cost it time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import stream
from bench.peers import build
from bench.peers.scenarios import Server

HERE = "127.0.0.1"
NAME = "bench"  # of the model while ollama has it


@dataclass(frozen=True)
class Sizes:
    """What is the same for all."""

    n_slots: int
    n_ctx: int  # tokens of each slot
    n_threads: int


class AbsentError(Exception):
    """A peer cannot take part; the message is a sentence that says why."""


@dataclass(frozen=True)
class Peer:
    """A server of somebody else."""

    find: Callable[[], str]  # its program; raises AbsentError
    serve: Callable[[str, str, Sizes], AbstractContextManager[Server]]  # (program, model, sizes)
    note: str = ""


def installed(name: str) -> str:
    """The path of a program of the user's. Raises AbsentError."""
    path = shutil.which(name)
    if not path:
        raise AbsentError(f"{name} is not installed.")
    return path


def made(make: Callable[[], None], program: Path) -> str:
    """The path of a program that we make. Raises AbsentError."""
    try:
        make()
    except build.BuildError as error:
        raise AbsentError(str(error)) from error
    return str(program)


@contextmanager
def linnet(model: str, sizes: Sizes) -> Iterator[Server]:
    """Ours, which computes as much as the others: a model of random weights repeats itself, and guesses, or answers ended
    early for that, would win without merit.
    """
    options = ["--no-draft", "--slots", str(sizes.n_slots), "--ctx", str(sizes.n_ctx), "--threads", str(sizes.n_threads)]
    with tempfile.TemporaryDirectory() as folder, stream.linnet(model, "--cache-dir", folder, *options) as url:
        yield Server(url)


@contextmanager
def llama_server(program: str, model: str, sizes: Sizes) -> Iterator[Server]:
    """llama.cpp's own, of the same commit as our library."""
    port = stream.free_port()
    with _serve("llama-server", [program, *llama_server_options(model, port, sizes)], port, "/health") as server:
        yield server


@contextmanager
def llamafile(program: str, model: str, sizes: Sizes) -> Iterator[Server]:
    """It wraps llama.cpp's server and takes its options. Its file is a program that not every system starts but a shell."""
    port = stream.free_port()
    command = ["sh", program, "--server", *llama_server_options(model, port, sizes)]
    with _serve("llamafile", command, port, "/health") as server:
        yield server


def llama_server_options(model: str, port: int, sizes: Sizes) -> list[str]:
    """Its context is divided among the slots."""
    n_ctx = sizes.n_ctx * sizes.n_slots
    return _words(
        {"-m": model, "--host": HERE, "--port": port, "--parallel": sizes.n_slots, "-c": n_ctx, "-t": sizes.n_threads}
    )


@contextmanager
def module_server(program: str, model: str, sizes: Sizes) -> Iterator[Server]:
    """llama-cpp-python's, on the very library that Linnet runs on."""
    port = stream.free_port()
    command = [program, "-m", "llama_cpp.server", *module_server_options(model, port, sizes)]
    with _serve("module-server", command, port, "/v1/models") as server:
        yield server


def module_server_options(model: str, port: int, sizes: Sizes) -> list[str]:
    """By default a new client ends the answer of the one before, and the logits of whole prompts are computed."""
    threads = {"--n_threads": sizes.n_threads, "--n_threads_batch": sizes.n_threads}
    choices = {"--interrupt_requests": False, "--logits_all": False, "--verbose": False}
    return _words({"--model": model, "--host": HERE, "--port": port, "--n_ctx": sizes.n_ctx} | threads | choices)


@contextmanager
def ollama(program: str, model: str, sizes: Sizes) -> Iterator[Server]:
    """With a folder of models of its own, into which it copies ours; the user's are not touched."""
    port = stream.free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | ollama_environment(folder, port, sizes)
        recipe = Path(folder) / "Modelfile"
        recipe.write_text(ollama_recipe(model, sizes))
        with _serve("ollama", [program, "serve"], port, "/api/version", environment) as server:
            create = [program, "create", NAME, "-f", str(recipe)]
            done = subprocess.run(create, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"ollama could not take the model: {done.stderr.strip()[-200:]}")
            yield Server(server.url, {"model": NAME})


def ollama_recipe(model: str, sizes: Sizes) -> str:
    """What ollama shall make of the file."""
    return f"FROM {model}\nPARAMETER num_ctx {sizes.n_ctx}\nPARAMETER num_thread {sizes.n_threads}\n"


def ollama_environment(folder: str, port: int, sizes: Sizes) -> dict[str, str]:
    """What its recipe cannot say. -1: the model stays loaded for ever."""
    slots = {"OLLAMA_NUM_PARALLEL": str(sizes.n_slots), "OLLAMA_CONTEXT_LENGTH": str(sizes.n_ctx)}
    return {"OLLAMA_HOST": f"{HERE}:{port}", "OLLAMA_MODELS": f"{folder}/models", "OLLAMA_KEEP_ALIVE": "-1"} | slots


@contextmanager
def _serve(
    name: str, command: list[str], port: int, health: str, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Runs it until the block ends; yields it once the path `health` is answered. Raises RuntimeError."""
    build.HOME.mkdir(parents=True, exist_ok=True)
    log = build.HOME / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        try:
            stream.wait_for(f"http://{HERE}:{port}", process, health)
        except RuntimeError as error:
            raise RuntimeError(f"{name} did not start; {log.relative_to(stream.ROOT)} tells why.") from error
        yield Server(f"http://{HERE}:{port}")
    finally:
        stream.end(process)


def _words(options: dict[str, object]) -> list[str]:
    return [str(part) for option in options.items() for part in option]


PEERS = {
    "llama-server": Peer(lambda: made(build.programs, build.LLAMA_SERVER), llama_server),
    "module-server": Peer(lambda: made(build.environment, build.PYTHON), module_server, "one sequence: clients wait"),
    "ollama": Peer(lambda: installed("ollama"), ollama, "its own llama.cpp and chat template"),
    "llamafile": Peer(lambda: installed("llamafile"), llamafile, "its own llama.cpp"),
}
