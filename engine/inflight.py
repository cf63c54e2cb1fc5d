"""The requests that are in the engine: how many may be, which of them a worker has, and what a worker's end means to each.

No locks here: the engine holds its own around every call.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.request import Event, Failed, Finished, Request, Trouble
from engine.stream import Work

DIED = (Trouble.ENGINE_DIED, "The engine crashed or stalled while it worked on this request.")
STRIKES = 2  # workers that may end with a request in them before it is refused


class InFlight:
    """By id. `n_slots` may read ahead at once, `n_open` may run and wait."""

    def __init__(self, n_slots: int, n_open: int) -> None:
        self._n_slots, self._n_open = n_slots, n_open
        self._work: dict[str, Work] = {}
        self._held: set[str] = set()  # of these, the worker that is there knows nothing: the next one gets them

    def __len__(self) -> int:
        return len(self._work)

    def __contains__(self, id: str) -> bool:
        return id in self._work

    @property
    def at_work(self) -> bool:
        """Whether a worker has any of them."""
        return len(self._work) > len(self._held)

    def is_full(self, background: bool) -> bool:
        """Whether one more is too many."""
        # Those that read ahead take no room in the queue: one for each slot at most, and the others do not see them.
        n = sum(work.n_readers for work in self._work.values() if work.background == background)
        return n >= (self._n_slots if background else self._n_open)

    def add(self, work: Work, held: bool) -> None:
        """One more."""
        self._work[work.id] = work
        if held:
            self._held.add(work.id)

    def pop(self, id: str) -> Work | None:
        """One less; None: it had ended already."""
        self._held.discard(id)
        return self._work.pop(id, None)

    def deliver(self, event: Event) -> bool:
        """What a worker says about one of them, if it was not cancelled meanwhile; whether that was the last of it."""
        ends = isinstance(event, Finished | Failed)
        if work := self.pop(event.id) if ends else self._work.get(event.id):
            work.put(event)
        return ends

    def hand_over(self) -> list[Request]:
        """All of them, for a new worker."""
        self._held.clear()
        return [work.request for work in self._work.values()]

    def hand_over_held(self) -> list[Request]:
        """Those that the worker does not have yet; it stays after all."""
        held = [work.request for id, work in self._work.items() if id in self._held]
        self._held.clear()
        return held

    def fail(self, work: Work, trouble: Trouble, message: str) -> None:
        """It ends with this."""
        work.put(Failed(work.id, trouble, message))
        self.pop(work.id)

    def fail_all(self, trouble: Trouble, message: str) -> None:
        """All of them do."""
        for work in list(self._work.values()):
            self.fail(work, trouble, message)

    def fail_held(self, trouble: Trouble, message: str) -> None:
        """Those do that no worker has."""
        for id in list(self._held):
            self.fail(self._work[id], trouble, message)

    def worker_ended(self, stopping: bool, stalled: str | None, limit_s: float) -> None:
        """Some are told so, the others wait for the next one. `stalled`: the request at which it did; "": all that ran."""
        for work in list(self._at_work()):
            work.n_strikes += not stalled  # else it is known whose fault it was
            if stalled == work.id:
                message = f"The engine did not come back from a step of this request within {limit_s:g} s."
                self.fail(work, Trouble.STALLED, message)
            elif stopping or (work.begun and stalled is None) or work.n_strikes >= STRIKES:
                self.fail(work, *DIED)

    def _at_work(self) -> Iterator[Work]:
        return (work for id, work in self._work.items() if id not in self._held)
