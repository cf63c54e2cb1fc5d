"""Linnet's front door: options -> engine -> app -> server. The only place that wires the parts together.

python server.py --help
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from waitress.server import BaseWSGIServer

from api import wsgi
from api.app import create_app, n_seats
from api.pool import Doubt, Model, Pool, Shelf
from api.source import Scope, Source
from cache.store import Store
from engine import memory, threads
from engine.client import Engine
from engine.header import HeaderError
from engine.request import Config, Limits, Ready
from engine.room import Room
from models import catalog, fit, identity, store
from models.downloads import Downloads
from settings import Settings, SettingsError, read
from web.chats import Chats

log = logging.getLogger("linnet")
FETCHING_S = 2.0  # downloads may take so long to stop; what came of them stays
SLOW_FROM_BYTES = 2**31  # a smaller model says a token in a second on any machine that it fits
DRAIN_S = 20.0  # running answers may take so long to end after a signal
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Serves until a signal comes; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not in the lines, and not for nothing
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs addresses, which are signed
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait is what the queue is for
    try:
        settings = read(arguments)
        models = models_folder(settings)
        path = store.find(settings.model, None if settings.no_cache else settings.cache_dir, models)
        listener = listen(settings.host, settings.port)
        folder = Folder(settings, path)
        if (doubt := folder.doubt(configure(settings, path))) and not doubt.firm:  # what is no model at all, the loader says
            raise memory.DoesNotFitError(f"{doubt.sentence} With --force it is loaded all the same.")
        model = None if settings.no_cache else identity.Watched(path, settings.cache_dir)
        kept = chats_file(settings)
        chats = Chats(kept) if kept else None
    except (SettingsError, store.StoreError, memory.DoesNotFitError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:  # a large file was being read for the first time
        return 0
    pool = Pool(Model(settings.alias or path.stem, folder.open(path, model)), folder)
    fetching = Downloads(models)
    app = create_app(settings, pool, fetching, chats)
    server = wsgi.create_server(app, listener, n_seats(settings))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        return run(settings, pool, server, f"http://{host}:{server.effective_port}")
    finally:
        fetching.stop(FETCHING_S)
        if chats:
            app.extensions["linnet.runs"].close()
            chats.close()


class Folder(Shelf):
    """The folder of models. Their engines are set up alike and share the memory, their answers one store."""

    def __init__(self, settings: Settings, default: Path) -> None:
        """`default`: the model the server is started with."""
        self._settings, self._default = settings, default
        self._measuring = threading.Lock()
        self._measured: fit.Machine | None = None
        self._models = models_folder(settings)
        self._room = Room(settings.force)
        self._answers = None
        if not settings.no_cache:
            answers = settings.cache_dir / "answers"
            self._answers = Store(answers, settings.answer_ram * 2**20, settings.answer_disk * 2**20)

    def installed(self) -> dict[str, Path]:
        """By name; the demo last."""
        return store.installed(self._models)

    def open(self, path: Path, watched: identity.Watched | None = None) -> Source:
        """Answers of a model, kept for the next who ask the same of it."""
        settings = self._settings
        engine = Engine(configure(settings, path), settings.max_queue, settings.keep_alive, self._room)
        if not self._answers:
            return Source(engine)
        model = watched or identity.Watched(path, settings.cache_dir, wait=False)
        version = metadata.version("llama-cpp-python")

        def scope() -> Scope | None:
            known = model.of(engine.model_file())
            if not known or identity.EXACT in known.clock:
                return None
            facts = {"engine": version, "n_ctx": engine.n_ctx, "kv_type": engine.config.kv_type}
            return Scope(facts | {"model": known.sha256}, known.clock)

        return Source(engine, self._answers, scope, settings.answer_age)

    def doubt(self, config: Config) -> Doubt | None:
        """A file that is no model; one that does not fit, or would be too slow to wait for."""
        path = Path(config.model_path)
        try:
            memory.sizes(store.check(path))
            self._room.check(config)
        except (store.StoreError, HeaderError, OSError) as error:
            return Doubt(f"{path.stem} cannot be loaded: {str(error).replace(str(path), path.name)}", firm=True)
        except memory.DoesNotFitError as error:
            return Doubt(str(error), firm=False)
        if path.stat().st_size < SLOW_FROM_BYTES or self._settings.force:
            return None
        found = fit.fit(config, self._machine())
        return Doubt(found.sentence, firm=False) if found.verdict is fit.Verdict.BAD else None

    def catalog(self, opened: Sequence[Config] = ()) -> list[dict[str, Any]]:
        """As clients are told."""
        settings = self._settings
        known, default = catalog.catalog(), self._default
        told = []
        for row in fit.fits(self._machine(), configure(settings, Path()), self._models, opened):
            entry, need = known.get(row.name), row.fit.need
            here = row.path and (settings.alias if row.path == default and settings.alias else row.path.stem)
            told.append(
                {
                    "name": here or row.name,
                    "installed": row.path is not None,
                    "fetch": None if row.path else row.name,
                    "bytes": row.size_bytes,
                    "parameters": row.n_parameters or None,
                    "good_for": row.good_for or None,
                    "licence": entry.licence if entry else None,
                    "reasoning": entry.reasoning if entry else None,
                    "memory_bytes": need.total_bytes if need else None,
                    "available_bytes": row.fit.available_bytes,
                    "tokens_per_s": row.fit.tokens_per_s and round(row.fit.tokens_per_s, 2),
                    "verdict": row.fit.verdict,
                    "recommended": row.recommended,
                }
            )
        return told

    def _machine(self) -> fit.Machine | None:
        with self._measuring:  # two measurements at once would disturb each other
            if not self._measured:
                self._measured = fit.machine(None if self._settings.no_cache else self._settings.cache_dir)
            return self._measured

    def remove(self, name: str) -> None:
        """Deletes its file."""
        try:
            store.remove(name, self._models)
        except store.StoreError as error:
            raise OSError(str(error)) from error


def models_folder(settings: Settings) -> Path:
    """Absolute, for workers run elsewhere."""
    return (settings.models_dir or store.FOLDER).resolve()


def chats_file(settings: Settings) -> Path | None:
    """Where the chats are kept; None: nowhere. They are no cache: what is lost there nobody can make again."""
    if settings.chats == Path("none") or (settings.no_cache and not settings.chats):
        return None
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    place = settings.chats or (data if data.is_absolute() else Path.home() / ".local/share") / "linnet/chats.db"
    return place / "chats.db" if place.is_dir() else place


def configure(settings: Settings, path: Path) -> Config:
    """The engine's part of the settings."""
    return Config(
        str(path),
        settings.ctx,
        settings.slots,
        settings.threads or threads.count(),
        kv_type=settings.kv_type,
        draft=not settings.no_draft,
        slice_s=settings.slice_ms / 1000 if settings.slice_ms else None,
        ram_bytes=settings.prefix_ram * 2**20,
        disk_bytes=settings.prefix_disk * 2**20,
        cache_dir=None if settings.no_cache else str(settings.cache_dir),
        limits=Limits(settings.queue_timeout, settings.prompt_timeout, settings.answer_timeout, settings.step_timeout),
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError with a sentence."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # so that a port already in use is found out now, not after loading the model
    except OSError as error:
        raise OSError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port.") from error
    return listener


def run(settings: Settings, pool: Pool, server: BaseWSGIServer, address: str) -> int:
    """Starts everything, waits for Ctrl-C or SIGTERM, ends everything."""
    engine = pool.default.engine
    try:
        for number in SIGNALS:
            signal.signal(number, lambda *_: interrupt(pool))
        log.info("Loading %s with %d threads ...", engine.config.model_path, engine.config.n_threads)
        engine.start()
        http = threading.Thread(target=server.run, name="http", daemon=True)
        http.start()
        status = engine.wait()
        if not status.ready:
            sys.stderr.write(f"{status.failure}\n")
            return 1
        if not settings.no_cache:
            remember(engine.config.model_path, settings)
        welcome(status.ready, address, pool.default.name, settings.slots)
        http.join()  # it ends only by a fault of its own
        log.error("The HTTP server has ended")
        return 1
    except KeyboardInterrupt:
        finish(pool)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        pool.close()
        wsgi.flush(server)
        if pool.store:
            pool.store.close()
    return 0


def welcome(ready: Ready, address: str, name: str, n_slots: int) -> None:
    """What a user wants to know first; also when the log is not looked at."""
    size = f"{ready.n_params / 1e6:,.1f} M parameters, {ready.size_bytes / 1e6:,.0f} MB"
    context = f"{n_slots} x {ready.n_ctx:,} tokens of context"
    log.info("%s: %s, %s; %s; loaded in %.1f s", name, ready.description, size, context, ready.load_s)
    log.info("Linnet is ready: chat at %s  API at %s/v1  (Ctrl-C ends it)", address, address)


def remember(model_path: str, settings: Settings) -> None:
    """Makes this the model of the next run that names none."""
    try:
        store.remember(Path(model_path), settings.cache_dir, models_folder(settings))
    except OSError as error:
        log.warning("%s cannot be written (%s): the next run will not know this model", settings.cache_dir, error.strerror)


def interrupt(pool: Pool) -> NoReturn:
    """The first signal: ends the waiting in `run`. From now on another one ends the answers that still run."""
    for number in SIGNALS:
        # In a thread of its own: a handler that raised could hit any line of the orderly end it interrupts.
        signal.signal(number, lambda *_: threading.Thread(target=pool.close).start())
    raise KeyboardInterrupt


def finish(pool: Pool) -> None:
    """Lets running answers end, unless a second signal comes."""
    pool.drain(0)  # nothing new from now on: what is said next must be true when it is read
    n = pool.n_requests
    if n:
        log.info("Finishing %d running answers; Ctrl-C again ends them now", n)
    pool.drain(DRAIN_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
