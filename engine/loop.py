"""The worker's loop: take commands, schedule, run, deliver. The one thread in here owns llama.cpp.

A step is one call of the native kernel for all that run. What is decided elsewhere: who gets how many tokens
(engine.scheduler), what is known already (engine.recall), what may come next (engine.draft), with how many threads
(engine.governor). What happens is here.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import time
from collections.abc import Callable

from engine import request as words
from engine import vectors
from engine.answer import Answer
from engine.beat import Beat
from engine.constraint import GrammarError
from engine.costs import ROWS, Costs
from engine.governor import Governor
from engine.native.model import DecodeError, Model
from engine.prefix import Prefixes
from engine.recall import Recall
from engine.reception import Reception, RefusalError
from engine.request import Reason, Trouble
from engine.scheduler import DRAFT_MAX, Scheduler, Slice

log = logging.getLogger("engine")
TELL_S = 1.0  # who waits for a first token hears so often how far it is
TAKE_S = 0.01  # so long at most new requests are looked at between two steps of running ones
GATHER_S = 0.005  # so long others are waited for before a long prompt is read: those that come together are read together


class Loop:
    """All requests of one worker, from their arrival to their end."""

    def __init__(
        self,
        model: Model,
        config: words.Config,
        parts: tuple[Costs, Governor, Prefixes, Beat],
        inbox: queue.SimpleQueue[words.Command],
        send: Callable[[list[words.Word]], None],
    ) -> None:
        self._model = model
        self._costs, self._governor, prefixes, self._beat = parts
        self._recall = Recall(model, prefixes, self._beat)
        self._reception = Reception(model)
        self._scheduler: Scheduler[Answer] = Scheduler(config.n_slots, self._costs, config.slice_s)
        self._drafts = config.draft and model.keeps_states  # what was guessed wrong must be cut off again
        self._limits = config.limits
        self._inbox = inbox
        self._send = send
        self._unsent: list[words.Word] = []  # until the step is done: waking the front costs a part of the next one

    @property
    def answers(self) -> list[Answer]:
        """All that run or wait."""
        return list(self._scheduler)

    def run(self) -> None:
        """Works until it is told to end; waits without cost when there is nothing to do."""
        while self.take():
            self.step()
        self._flush()
        for answer in self.answers:
            self.remove(answer)
        self._recall.write()

    def take(self) -> bool:
        """Carries out the commands that have come; waits for one when nothing runs. False: the end has come."""
        idle, until = False, time.monotonic() + TAKE_S
        while True:
            if not self._scheduler:
                idle, until = True, 0.0
            command = self._next_command(gather=idle)
            if not command:
                break
            until = until or time.monotonic() + TAKE_S  # from the first on: it may have been long in coming
            match command:
                case words.End():
                    return False
                case words.Request() as request:
                    self._accept(request)
                case words.Cancel(id):
                    if answer := self._scheduler.find(id):
                        self.remove(answer)
            if self._scheduler and time.monotonic() > until:
                break  # the running answers have waited long enough
        self._flush()
        return True

    def _next_command(self, gather: bool) -> words.Command | None:
        """None: go on with what is there."""
        if not self._inbox.empty():
            return self._inbox.get()
        if not self._scheduler:
            self._flush()
            self._recall.write()  # now is the time: nobody waits
            return self._inbox.get()
        if gather and self._costs(max(map(self._recall.n_unknown, self.answers))) > 20 * GATHER_S:
            with contextlib.suppress(queue.Empty):
                return self._inbox.get(timeout=GATHER_S)
        return None

    def step(self) -> None:
        """One call of the native kernel, and what comes of it."""
        self._step()
        self._flush()

    def _flush(self) -> None:
        if self._unsent:
            self._send(self._unsent)
            self._unsent = []

    def _step(self) -> None:
        self._look_at_clocks()
        self._admit()
        self._read_apart()
        answering = self._scheduler.answering()
        self._guess(answering)
        slices = self._scheduler.next(answering)
        if not slices:
            return
        rows = self._fill(slices)
        started = time.monotonic()
        try:
            with self._beat.step(len(slices)):
                self._model.decode()
        except DecodeError as error:
            self._give_up([s.sequence for s in slices], error)
            return
        self._learn(self._model.batch.n, started)
        for s, row in zip(slices, rows, strict=True):
            s.sequence.n_read = s.stop
            if s.complete:
                self._sample(s.sequence, row)

    def _read_apart(self) -> None:
        """Some tokens of a text whose vector is wanted, in a step of their own."""
        running = self._scheduler.running
        if not (answer := next((answer for answer in running if answer.apart), None)):
            return
        try:
            n = self._model.n_outputs if all(other.apart for other in running) else ROWS
            with self._beat.inside_for(answer.id):
                vector = vectors.go_on(self._model, answer, n)
        except DecodeError as error:
            self._give_up([answer], error)
            return
        if vector:
            self._unsent.append(words.Result(answer.id, vector))
            self._finish(answer, Reason.READ)

    def _fill(self, slices: list[Slice[Answer]]) -> list[int]:
        """Lays out the batch; the row of each slice's first logits."""
        batch = self._model.batch
        batch.clear()
        rows = []
        for s in slices:
            draft = s.sequence.draft if s.complete else []
            tokens = s.sequence.tokens[s.start : s.stop] + draft
            rows.append(batch.add(s.slot, tokens, s.start, s.complete + len(draft)))
        return rows

    def _learn(self, n_tokens: int, started: float) -> None:
        """What the time of a step says about the machine."""
        now = time.monotonic()
        self._costs.observe(n_tokens, now - started)
        before = self._governor.n
        if self._governor.observe(n_tokens, now - started, now) != before:
            self._model.use_threads(self._governor.n)

    def _accept(self, request: words.Request) -> None:
        """Whatever can be refused is refused here, before the request waits for anything."""
        try:
            with self._beat.inside_for(request.id):
                if not request.want.computes:
                    self._unsent += self._reception.tell(request)
                    return
                answer = self._reception.receive(request)
        except RefusalError as error:
            self._unsent.append(words.Failed(request.id, error.trouble, error.message))
            return
        self._scheduler.add(answer)
        self._unsent.append(words.Accepted(request.id, answer.n_prompt, answer.begins))
        if request.done and (reason := answer.used_up(self._model.n_ctx)):
            self._finish(answer, reason)  # only its end got lost

    def _admit(self) -> None:
        """Gives free slots to those who wait, and to each of them what is known of its prompt."""
        for answer in self._scheduler.in_the_way():
            self._finish(answer, Reason.GAVE_WAY)
        for answer in self._scheduler.admit():
            answer.admitted = time.monotonic()
            if not answer.apart:
                self._recall.begin(answer, self._scheduler.running)
        self._recall.go_on(self._scheduler.running)

    def _guess(self, answering: list[Answer]) -> None:
        n_left = DRAFT_MAX if self._drafts and not self._scheduler.reading else 0  # a prompt can use the room better
        for answer in answering:
            n_most = min(n_left, self._model.n_ctx - len(answer.tokens), answer.n_wanted - 1) if n_left else 0
            answer.draft = answer.lookup.guess(len(answering) - 1, self._costs, n_most) if n_most > 0 else []
            n_left -= len(answer.draft)

    def _sample(self, answer: Answer, row: int) -> None:
        """The next token, and as many more as were guessed right."""
        if answer.background:
            self._finish(answer, Reason.READ)
            return
        draft, answer.draft = answer.draft, []
        n_right = 0
        for guessed in (*draft, None):
            with self._beat.inside_for(answer.id):  # grammars are native code, too
                token = self._choose(answer, row + n_right)
                goes_on = self._deliver(answer, token)
            if not goes_on or token != guessed:
                break
            n_right += 1
            answer.n_read += 1  # it is in the context already
        if draft and answer.slot is not None:  # else it has ended
            answer.lookup.learn(n_right, len(draft))
            self._beat.guessed(len(draft), n_right)
            self._model.cut(answer.slot, answer.n_read)

    def _choose(self, answer: Answer, row: int) -> int:
        """The next token; -1 when none fits the answer's shape."""
        grammar = answer.constraint.grammar if answer.constraint else None
        if answer.forced:
            token = answer.forced[0]
            answer.sampler.accept([token])
        else:
            token = self._model.sample(answer.sampler, row, grammar)
        if answer.request.logprobs is not None and token >= 0 and not self._model.vocabulary.ends(token):
            answer.chances.append(self._model.chances(row, token, answer.request.logprobs))
        return token

    def _deliver(self, answer: Answer, token: int) -> bool:
        """What the new token means for the reader; whether the answer goes on."""
        if not answer.first_token:
            answer.first_token = time.monotonic()
        if token >= 0 and self._model.vocabulary.ends(token):
            self._finish(answer, Reason.END)
            return False
        try:
            if token < 0:
                raise GrammarError("The model has no token that fits.")
            text, reason = answer.push(token, self._model.vocabulary.piece(token), self._model.n_ctx)
        except GrammarError as error:
            self._unsent.append(words.Failed(answer.id, Trouble.BAD_SHAPE, f"The answer cannot be kept in shape: {error}"))
            self.remove(answer)
            return False
        if text:
            self._unsent.append(answer.delta(text))
        if reason:
            self._finish(answer, reason)
        return reason is None

    def _finish(self, answer: Answer, reason: Reason) -> None:
        if (rest := answer.text.finish()) or answer.unsent:  # the front wants to know all tokens, also those without text
            self._unsent.append(answer.delta(rest))
        self._unsent.append(answer.finished(reason))
        self.remove(answer)

    def remove(self, answer: Answer, keep: bool = True) -> None:
        """Forgets a request and all it holds, running or waiting; what was computed for it is kept for others."""
        slot = answer.slot
        self._scheduler.remove(answer)
        answer.slot = None
        answer.close()
        if slot is None:
            return
        if keep:
            self._recall.keep(answer.tokens[: answer.n_read], slot, answer.request.private)
        self._model.cut(slot, 0)

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        # Who waits longest stands first: where one is in time, so are all behind it.
        late = itertools.takewhile(lambda answer: answer.overdue(now, self._limits), self._scheduler.waiting)
        for answer in [*self._scheduler.running, *late]:
            if trouble := answer.overdue(now, self._limits):
                self._unsent.append(words.Failed(answer.id, *trouble))
                self.remove(answer)
        running = ((0, answer) for answer in self._scheduler.running)
        for n_before, answer in [*running, *self._scheduler.some_waiting()]:
            if not answer.first_token and not answer.background and now - max(answer.told, answer.added) > TELL_S:
                self._unsent.append(answer.progress(now, n_before))

    def _give_up(self, answers: list[Answer], error: DecodeError) -> None:
        """A failed step leaves the sequences in it in doubt, so those are told and forgotten; the others go on."""
        log.error("A step of %d sequences failed: %s", len(answers), error)
        for answer in answers:
            self.remove(answer, keep=False)
            self._unsent.append(words.Failed(answer.id, Trouble.INTERNAL, "The engine could not compute this answer."))
