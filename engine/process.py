"""The worker process as a handle: words go in, words come out, and it ends with its input, however the front ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from engine import threads
from engine.beat import Beat
from engine.request import Command, Word, dump, load
from engine.tally import Tally

log = logging.getLogger("engine")
ROOT = Path(__file__).resolve().parent.parent
WORKER = "engine.worker"
EXIT_S = 2.0  # for a worker to end itself after its input ended


class Process:
    """One worker from start to end. `send` and `end` may be called from any thread, `words` from one."""

    def __init__(self, tally: Tally) -> None:
        """What it does is counted in `tally`."""
        self.beat = Beat()
        self._tally = tally
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(self.beat.descriptor)],
                cwd=ROOT,
                env=os.environ | threads.environment(),
                pass_fds=[self.beat.descriptor],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError:
            self.beat.close()
            raise
        assert self._process.stdin
        assert self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout
        self._writing = threading.Lock()

    @property
    def pid(self) -> int:
        """The operating system's number for it."""
        return self._process.pid

    @property
    def ending(self) -> str:
        """How it ended, in words: "SIGSEGV" or "exit code 1"."""
        code = self._process.returncode
        if code >= 0:
            return f"exit code {code}"
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"

    def send(self, command: Command) -> None:
        """Says something to it. If it is gone there is nobody to tell, and `words` ends."""
        try:
            with self._writing:
                self._input.write(dump(command))
                self._input.flush()
        except (OSError, ValueError):  # a broken pipe; closed by `end` just now
            log.debug("The engine process is gone; %s was not sent.", type(command).__name__)

    def words(self) -> Iterator[Word]:
        """What it says, until it has ended. What makes no sense ends it."""
        with self._output:
            try:
                for word in map(load, self._output):
                    self._tally.hear(word)
                    self._tally.work(*self.beat.news())
                    yield word
            except (ValueError, TypeError, KeyError):
                log.exception("The engine process said something that makes no sense; it is replaced.")
                self.kill()
        self._process.wait()
        self._close_input()
        self._tally.work(*self.beat.news())
        self.beat.close()

    def kill(self) -> None:
        """Ends it at once: it is stuck. `words` ends then, too."""
        self._process.kill()

    def end(self) -> None:
        """Closes its input, at which it ends itself; one that does not is stuck and is killed."""
        self._close_input()
        try:
            self._process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _close_input(self) -> None:
        try:
            self._input.close()
        except OSError:  # something unsent is in the buffer, and nobody there to take it
            log.debug("The engine process was gone before its input was closed.")
