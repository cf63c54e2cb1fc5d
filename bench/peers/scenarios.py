"""What a server of any make is asked to do while it is compared with another, and what is measured of it.

All ask the tasks of bench.prompts, each after a salt: of a turn both sides get the same one, so the same prompts, and no
other turn has it, so nothing is known before, except in the second turn of a chat. Answers are checked: one that is empty
or too long raises WrongAnswerError.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import prompts, stream

N_ANSWER = 48  # tokens
N_SHORT = 8  # where only the first text counts
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
    run: Callable[[Server, str], Sample]  # with a salt that this server was never given


@functools.cache
def questions(kind: str) -> list[str]:
    """Of the tasks of one kind that are no more than a question."""
    return [task.messages[0]["content"] for task in prompts.load(kind) if len(task.messages) == 1]


def talk(kind: str, salt: object, i: int = 0) -> Chat:
    """A chat of the i-th question of a kind."""
    return [{"role": "user", "content": f"{i} {salt} {questions(kind)[i]}"}]


def mixed(n: int, salt: object) -> list[Chat]:
    """Half of them ask for talk, half for code."""
    return [talk(("chat", "code")[i % 2], salt, i) for i in range(n)]


def ask_all(server: Server, chats: list[Chat], max_tokens: int) -> list[stream.Answer]:
    """All at once, each from a client of its own. Raises WrongAnswerError."""
    answers = stream.ask_all(server.url, chats, max_tokens, **server.fields)
    for answer in answers:
        if not answer.n_tokens:  # not every server counts what it streams
            answer.n_tokens = max_tokens if answer.reason == "length" else len(answer.tokens)
    return [answer.checked(max_tokens) for answer in answers]


def ask(server: Server, chat: Chat, max_tokens: int) -> stream.Answer:
    """One answer. Raises WrongAnswerError."""
    return ask_all(server, [chat], max_tokens)[0]


def sample(value: float, *answers: stream.Answer) -> Sample:
    """The value with what it was measured on."""
    return Sample(value, sum(a.n_prompt for a in answers), sum(a.n_tokens for a in answers))


def clients(n: int, n_answer: int = N_ANSWER) -> Callable[[Server, str], Sample]:
    """Total tokens/s of n clients, each with a short question of its own."""

    def run(server: Server, salt: str) -> Sample:
        answers = ask_all(server, mixed(n, salt), n_answer)
        return sample(stream.tokens_per_s(answers), *answers)

    return run


def shared(server: Server, salt: str) -> Sample:
    """Seconds to the first text of the slowest of 8 clients with one system prompt and a short question each."""
    system = {"role": "system", "content": f"{salt} {questions('copy')[1]}"}
    answers = ask_all(server, [[system, *chat] for chat in mixed(8, salt)], N_SHORT)
    return sample(max(answer.first_s for answer in answers), *answers)


def busy(server: Server, salt: str) -> Sample:
    """tokens/s of one answer, from its first token on, while another program keeps one core busy."""
    with stream.busy_neighbour():
        answer = ask(server, talk("chat", salt), 2 * N_ANSWER)
    return sample(answer.per_s, answer)


def second(server: Server, salt: str) -> Sample:
    """Seconds to the first text of the second turn of a chat that began with a text to copy."""
    chat = talk("copy", salt)
    said = ask(server, chat, N_SHORT).text
    answer = ask(server, [*chat, {"role": "assistant", "content": said}, *talk("chat", salt, 1)], N_SHORT)
    return sample(answer.first_s, answer)


def long(server: Server, salt: str) -> Sample:
    """Seconds to the first text after a text to sum up."""
    answer = ask(server, talk("summary", salt), N_SHORT)
    return sample(answer.first_s, answer)


SCENARIOS = {
    "one": Scenario("one client", RATE, clients(1)),
    "four": Scenario("four clients at once", RATE, clients(4)),
    "eight": Scenario("eight clients at once", RATE, clients(8)),
    "shared": Scenario("one system prompt for eight: slowest first text", DELAY, shared),
    "busy": Scenario("one client beside a busy program", RATE, busy),
    "second": Scenario("second turn of a chat: first text", DELAY, second),
    "long": Scenario("a long prompt: first text", DELAY, long),
}


def warm_up(server: Server) -> None:
    """What comes first is slower, and not counted."""
    ask_all(server, mixed(2, "warm-up"), N_SHORT)
