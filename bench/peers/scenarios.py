"""What a server of any make is asked to do while it is compared with another, and what is measured of it.

All prompts are new, so nothing is known before, except in the second turn of a chat. Answers are checked: one that is
empty or too long raises WrongAnswerError.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bench import stream

N_ANSWER = 64  # tokens
N_SHORT = 16  # where only the first text counts
RATE, DELAY = "tokens/s", "s"  # of the first more is better, of the second less

Chat = list[stream.Message]


@dataclass(frozen=True)
class Server:
    """Where one runs."""

    url: str
    fields: dict[str, Any] = field(default_factory=dict)  # that it wants in each request, as the model's name


@dataclass(frozen=True)
class Sample:
    """One measured value, and what it was measured on."""

    value: float
    n_prompt: int  # tokens of all its prompts, as the server counts them; 0: it does not say
    n_tokens: int  # of all its answers


@dataclass(frozen=True)
class Scenario:
    """Something to do with a server."""

    title: str
    unit: str
    run: Callable[[Server], Sample]


def talk(n_words: int, name: object = "") -> Chat:
    """A chat of one question that was never asked before."""
    return [{"role": "user", "content": stream.text(n_words, f"{time.time_ns()} {name}")}]


def ask_all(server: Server, chats: list[Chat], max_tokens: int) -> list[stream.Answer]:
    """All at once, each from a client of its own. Raises WrongAnswerError."""
    with ThreadPoolExecutor(len(chats)) as clients:
        return list(clients.map(lambda chat: ask(server, chat, max_tokens), chats))


def ask(server: Server, chat: Chat, max_tokens: int) -> stream.Answer:
    """One answer. Raises WrongAnswerError."""
    answer = stream.ask(server.url, chat, max_tokens, **server.fields)
    if not answer.n_tokens:  # not every server counts what it streams
        answer.n_tokens = max_tokens if answer.reason == "length" else len(answer.tokens)
    return answer.checked(max_tokens)


def sample(value: float, *answers: stream.Answer) -> Sample:
    """The value with what it was measured on."""
    return Sample(value, sum(a.n_prompt for a in answers), sum(a.n_tokens for a in answers))


def clients(n: int, n_answer: int = N_ANSWER) -> Callable[[Server], Sample]:
    """Total tokens/s of n clients with prompts of about 95 tokens of their own."""

    def run(server: Server) -> Sample:
        answers = ask_all(server, [talk(6, i) for i in range(n)], n_answer)
        return sample(stream.tokens_per_s(answers), *answers)

    return run


def shared(server: Server) -> Sample:
    """Seconds to the first text, p95, of 8 clients with the same system prompt of about 700 tokens and short questions."""
    system = {"role": "system", "content": stream.text(125, time.time_ns())}
    answers = ask_all(server, [[system, *talk(2, i)] for i in range(8)], N_SHORT)
    return sample(stream.percentile([a.first_s for a in answers], 95), *answers)


def busy(server: Server) -> Sample:
    """tokens/s of one answer, from its first token on, while another program keeps one core busy."""
    with stream.busy_neighbour():
        answer = ask(server, talk(5), 2 * N_ANSWER)
    return sample(answer.per_s, answer)


def second(server: Server) -> Sample:
    """Seconds to the first text of the second turn of a chat whose first had about 560 tokens."""
    chat = talk(100)
    said = ask(server, chat, N_SHORT).text
    more = [*chat, {"role": "assistant", "content": said}, {"role": "user", "content": "and then?"}]
    answer = ask(server, more, N_SHORT)
    return sample(answer.first_s, answer)


def long(server: Server) -> Sample:
    """Seconds to the first text after a prompt of about 800 tokens."""
    answer = ask(server, talk(140), N_SHORT)
    return sample(answer.first_s, answer)


SCENARIOS = {
    "one": Scenario("one client", RATE, clients(1)),
    "four": Scenario("four clients at once", RATE, clients(4)),
    "eight": Scenario("eight clients at once", RATE, clients(8)),
    "shared": Scenario("one system prompt for eight: first text", DELAY, shared),
    "busy": Scenario("one client beside a busy program", RATE, busy),
    "second": Scenario("second turn of a chat: first text", DELAY, second),
    "long": Scenario("a long prompt: first text", DELAY, long),
}


def warm_up(server: Server) -> None:
    """What comes first is slower, and not counted."""
    ask_all(server, [talk(6, i) for i in range(2)], N_SHORT)
