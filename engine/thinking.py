"""What a reasoning model thinks, told apart from what it says: the text between <think> and </think> at an answer's start.

Some chat templates open the block in the prompt (DeepSeek-R1), some models open it themselves. Anywhere else these
spellings are text. Knows nothing of models: text goes in, text comes out.
"""

from __future__ import annotations

from enum import StrEnum

from engine.text import n_overlap

BEGIN, END = "<think>", "</think>"
CLOSING = f"\n{END}\n\n"  # what ends thoughts from outside


class Thinking(StrEnum):
    """What the prompt says about the answer's beginning."""

    NEVER = ""  # it is said
    MAYBE = "maybe"  # the template knows of thoughts: the model may begin with them
    OPEN = "open"  # they have begun in the prompt
    AMID = "amid"  # and so have their words


def state_after(prompt: str, template: str) -> Thinking:
    """From the text of a prompt and the template it was made with."""
    end = prompt.rstrip()
    if end.endswith(BEGIN):
        return Thinking.OPEN
    return Thinking.MAYBE if END in template and not end.endswith(END) else Thinking.NEVER


class Splitter:
    """Splits a growing text. Space around the thoughts belongs to neither part."""

    def __init__(self, state: Thinking) -> None:
        self._maybe = state is Thinking.MAYBE
        self.inside = state in (Thinking.OPEN, Thinking.AMID)
        self._held = ""  # may belong to a tag, or is space before one
        self._at_start = state in (Thinking.MAYBE, Thinking.OPEN)  # of either part: space is dropped

    @property
    def over(self) -> bool:
        """Whether all that comes is said."""
        return not (self.inside or self._maybe)

    def push(self, text: str) -> tuple[str, str]:
        """What is certain to be thought, and to be said."""
        text = self._held + text
        self._held = ""
        if self._maybe:
            begun = text.lstrip()
            if BEGIN.startswith(begun[: len(BEGIN)]) and len(begun) < len(BEGIN):
                self._held = text
                return "", ""
            self._maybe = False
            self.inside = begun.startswith(BEGIN)
            if not self.inside:
                self._at_start = False
                return "", text
            text = begun[len(BEGIN) :]
        if not self.inside:
            return "", self._begun(text)
        thought, tag, said = text.partition(END)
        if tag:
            self.inside = False
            thought = self._begun(thought).rstrip()
            self._at_start = True
            return thought, self._begun(said)
        shown = text[: len(text) - n_overlap(text, END)].rstrip()
        self._held = text[len(shown) :]
        return self._begun(shown), ""

    def finish(self) -> tuple[str, str]:
        """What was still held back."""
        held, self._held = self._held, ""
        return (self._begun(held.rstrip()), "") if self.inside else ("", held)

    def _begun(self, text: str) -> str:
        if self._at_start:
            text = text.lstrip()
            self._at_start = not text
        return text
