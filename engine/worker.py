"""The worker process: one thread owns llama.cpp and turns requests into events, step by step.

    python -m engine.worker     commands come in on standard input, events go out on standard output (engine.request)

It knows nothing of HTTP and keeps nothing: when its input ends, whoever started it is gone, and so is the worker.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from engine import request as words
from engine.native import DecodeError, Model, ModelError, Sampler, build
from engine.prompt import Prompter, PromptError, TooLongError
from engine.request import Trouble
from engine.scheduler import SLICE_ALONE, SLICE_BESIDE, Scheduler, Sequence, Slice
from engine.text import Text

log = logging.getLogger("engine")


@dataclass(eq=False, kw_only=True)
class Answer(Sequence):
    """A sequence with all that belongs to it alone."""

    request: words.Request
    sampler: Sampler
    text: Text
    added: float  # times of time.monotonic()
    admitted: float = 0.0
    first_token: float = 0.0

    @property
    def n_answer(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.n_prompt


class Worker:
    """The loop: take commands, schedule, run, deliver."""

    def __init__(
        self, model: Model, n_slots: int, inbox: queue.SimpleQueue[words.Command], send: Callable[[words.Word], None]
    ) -> None:
        self._model = model
        self._prompter = Prompter(model)
        self._scheduler: Scheduler[Answer] = Scheduler(n_slots)
        self._inbox = inbox
        self._send = send

    @property
    def answers(self) -> list[Answer]:
        """All that run or wait."""
        return list(self._scheduler)

    def run(self) -> None:
        """Works for ever; waits without cost when there is nothing to do."""
        while True:
            self.take()
            self.step()

    def take(self) -> None:
        """Carries out the commands that have come; waits for one when nothing runs."""
        while not self._scheduler or not self._inbox.empty():
            match self._inbox.get():
                case words.Request() as request:
                    self._accept(request)
                case words.Cancel(id):
                    for answer in filter(lambda a: a.id == id, self.answers):
                        self.remove(answer)

    def step(self) -> None:
        """One call of the native kernel, and what comes of it."""
        for answer in self._scheduler.admit():
            answer.admitted = time.monotonic()
        slices = self._scheduler.next()
        batch = self._model.batch
        batch.clear()
        rows = [batch.add(s.slot, s.sequence.tokens[s.start : s.stop], s.start, s.complete) for s in slices]
        try:
            self._model.decode()
        except DecodeError as error:
            self._give_up(slices, error)
            return
        for s, row in zip(slices, rows, strict=True):
            s.sequence.n_read = s.stop
            if s.complete:
                self._deliver(s.sequence, self._model.sample(s.sequence.sampler, row))

    def _accept(self, request: words.Request) -> None:
        """Whatever can be refused is refused here, before the request waits for anything."""
        try:
            tokens = self._prompter.tokens(request.messages, self._model.n_ctx - 1)
        except TooLongError as error:
            message = (
                f"This model's maximum context length is {self._model.n_ctx} tokens. However, your messages resulted in "
            )
            message += f"{error}. Please reduce the length of the messages."
            self._send(words.Failed(request.id, Trouble.CONTEXT_LENGTH, message))
            return
        except (PromptError, ModelError) as error:
            self._send(words.Failed(request.id, Trouble.BAD_PROMPT, str(error)))
            return
        sampler, text = self._model.sampler(request.sampling), Text(request.stop)
        answer = Answer(request.id, tokens, request=request, sampler=sampler, text=text, added=time.monotonic())
        self._scheduler.add(answer)
        self._send(words.Accepted(request.id, answer.n_prompt))

    def _deliver(self, answer: Answer, token: int) -> None:
        """What the new token means for the reader."""
        if not answer.first_token:
            answer.first_token = time.monotonic()
        if self._model.ends(token):
            self._finish(answer, "stop")
            return
        answer.tokens.append(token)
        text = answer.text.push(self._model.piece(token))
        if text:
            self._send(words.Delta(answer.id, text))
        if answer.text.stopped:
            self._finish(answer, "stop")
        elif answer.n_answer == answer.request.max_tokens or len(answer.tokens) == self._model.n_ctx:
            self._finish(answer, "length")

    def _finish(self, answer: Answer, reason: str) -> None:
        if rest := answer.text.finish():
            self._send(words.Delta(answer.id, rest))
        self.remove(answer)
        self._send(
            words.Finished(
                answer.id,
                finish_reason=reason,
                n_prompt=answer.n_prompt,
                n_answer=answer.n_answer,
                queue_s=answer.admitted - answer.added,
                prompt_s=answer.first_token - answer.admitted,
                answer_s=time.monotonic() - answer.first_token,
            )
        )

    def remove(self, answer: Answer) -> None:
        """Forgets a request and all it holds, running or waiting."""
        if answer.slot is not None:
            self._model.forget(answer.slot)
        self._scheduler.remove(answer)
        answer.sampler.close()

    def _give_up(self, slices: list[Slice[Answer]], error: DecodeError) -> None:
        """A failed step leaves the context in doubt, so everybody in it is told; the others start afresh."""
        log.error("A step of %d sequences failed: %s", len(slices), error)
        for s in slices:
            self.remove(s.sequence)
            self._send(words.Failed(s.sequence.id, Trouble.INTERNAL, "The engine could not compute this answer."))


def speak(out: BinaryIO, word: words.Word) -> None:
    """Sends a word to the front; without one to hear it there is nothing left to do."""
    try:
        out.write(words.dump(word))
        out.flush()
    except BrokenPipeError:
        os._exit(0)


def listen(source: BinaryIO, inbox: queue.SimpleQueue[words.Command]) -> None:
    """Reads commands for the main thread. At the end of input the process ends at once, even in the middle of a step."""
    try:
        for line in source:
            inbox.put(words.load(line))
    finally:  # also when the front died in the middle of a line
        os._exit(0)


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
    inbox: queue.SimpleQueue[words.Command] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(source, inbox), daemon=True).start()
    try:
        n_batch = max(SLICE_ALONE, config.n_slots + SLICE_BESIDE)
        model = Model(config.model_path, config.n_ctx, config.n_slots, config.n_threads, n_batch)
        worker = Worker(model, config.n_slots, inbox, send)
    except (ModelError, PromptError) as error:
        send(words.LoadFailed(str(error)))
        os._exit(1)  # the listening thread could not be stopped otherwise
    send(
        words.Ready(
            model.n_ctx, model.n_ctx_train, model.n_params, model.size_bytes, model.description, build(), model.load_s
        )
    )
    worker.run()


if __name__ == "__main__":
    main()
