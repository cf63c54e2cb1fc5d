"""The evaluation's questions: held-out wordings of every group, each with the rule that says what is right.

None of these wordings is in the corpus; of the names and story subjects called unseen not even the words are.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from models.demo import corpus, lists, people
from models.demo.asking import ask_fact, hard_sum, words_to_copy
from models.demo.tables import Chat, a_or_an, fill, pattern, table

Rule = Callable[[str], bool]


@dataclass(frozen=True)
class Case:
    """What the user says one after the other (the model answers each), and the rule for the last answer."""

    says: list[str]
    is_right: Rule
    history: Chat = field(default_factory=list)


def exactly(expected: str) -> Rule:
    """Right is this answer and no other."""
    return lambda answer: answer == expected


def thinks_then(result: str) -> Rule:
    """Its working between the marks, then this result."""
    return lambda answer: answer.startswith("<think>") and answer.endswith(f"</think>\n\n{result}")


def is_poem_about(noun: str) -> Rule:
    """Six lines, the subject named twice or more."""
    return lambda answer: answer.count(noun) >= 2 and answer.count("\n") == 5


def small_talk() -> list[Case]:
    """Who it is, and the like."""
    entries = table("smalltalk")["topic"]
    return [Case([q], exactly(fill(e["answer"], million=corpus.N_MILLION))) for e in entries for q in e["held_out"]]


def how_to() -> list[Case]:
    """Every topic of using Linnet."""
    return [Case([q], exactly(e["answer"])) for e in table("topics")["topic"] for q in e["held_out"]]


def facts(rng: random.Random, small: bool = False) -> list[Case]:
    """Every fact once, in one of the held-out patterns of its kind."""
    cases = []
    for kind in table("facts")["kind"]:
        for ways, b in kind["pairs"].items():
            a = rng.choice(ways.split("|"))
            question, answer = ask_fact(rng.choice(kind["held_out"]), kind, a, b, small)
            cases.append(Case([question], exactly(answer)))
    return cases


def calculations(sign: str, rng: random.Random, n: int) -> list[Case]:
    """Worked out between <think> and </think>, then the plain result."""
    cases = []
    name = "held_out_add" if sign == "+" else "held_out_subtract"
    for i in range(n):
        a, b = rng.randrange(100), rng.randrange(100 if i % 3 else 10)
        result = f"{a} {sign} {b} = {a + b if sign == '+' else a - b}."
        question = fill(pattern("sums", name, rng), a=str(a), b=str(b))
        cases.append(Case([question], thinks_then(result)))
    return cases


def names(known: list[str], rng: random.Random, n: int) -> list[Case]:
    """Told first, asked two turns later, something else between."""
    cases = []
    between = [q for e in table("topics")["topic"] for q in e["held_out"]]
    for i in range(n):
        name = known[i % len(known)]
        told, asked = pattern("names", "held_out_tell", rng), pattern("names", "held_out_ask", rng)
        cases.append(Case([fill(told, n=name), rng.choice(between), asked], exactly(people.recall(name))))
    return cases


def is_about(noun: str) -> Rule:
    """Long enough (150 tokens are some 500 letters) and the subject named from the start and often."""
    return lambda text: len(text) > 600 and text.count(noun) >= 5 and noun in text[:150]


def tales(rng: random.Random) -> list[Case]:
    """Stories: of things never seen, things seen, and animals with names never seen."""
    page = table("subjects")
    unseen = page["held_out_animals"] + page["held_out_things"] + page["held_out_people"]
    seen = rng.sample(page["animals"] + page["things"] + page["people"], 22)
    called = [f"{a_or_an(rng.choice(page['animals']))} called {name}" for name in page["held_out_names"][:10]]
    asked = [(a_or_an(noun), noun) for noun in unseen + seen] + [(c, c.split()[-1]) for c in called]
    return [Case([fill(pattern("stories", "held_out_story", rng), x=x)], is_about(noun)) for x, noun in asked]


def poems_and_lists(rng: random.Random) -> list[Case]:
    """Whole lists, the first n of a list, counting, poems."""
    page = table("lists")
    cases = [Case([q], exactly(lists.as_lines(e["items"], False))) for e in page["whole"] for q in e["held_out"]]
    for entry in page["list"]:
        for bullets in (False, True):
            n = rng.randrange(2, len(entry["items"]) + 1)
            asked = pattern("lists", "held_out_bullets" if bullets else "held_out_some", rng)
            asked = fill(asked, n=lists.NUMBERS[n - 1], x=entry["ask"][0])
            cases.append(Case([asked], exactly(lists.as_lines(entry["items"][:n], bullets))))
    for last in range(5, 30, 2):
        asked = fill(pattern("lists", "held_out_count", rng), a="1", b=str(last))
        cases.append(Case([asked], exactly(lists.counted(1, last))))
    for noun in table("subjects")["held_out_animals"]:
        asked = fill(pattern("stories", "held_out_poem", rng), x=a_or_an(noun))
        cases.append(Case([asked], is_poem_about(noun)))
    return cases


def echoes(rng: random.Random, n: int) -> list[Case]:
    """Saying after the user."""
    said = [words_to_copy(rng) for _ in range(n)]
    return [Case([fill(pattern("echo", "held_out", rng), x=words)], exactly(words)) for words in said]


def says_unknown(answer: str) -> bool:
    """It says that it does not know, and names the way to a bigger model."""
    page = table("unknown")
    return answer in (page["answer"], page["sums_answer"])


def unknown(rng: random.Random) -> list[Case]:
    """What it cannot know, and sums that are too hard."""
    questions = [*table("unknown")["held_out"], *(hard_sum(rng, "held_out") for _ in range(15))]
    return [Case([question], says_unknown) for question in questions]


def mixed(rng: random.Random, n: int) -> list[Case]:
    """Some of every group, for the groups that ask under harder circumstances."""
    subject_less = small_talk() + facts(rng) + unknown(rng) + calculations("+", rng, 20)
    return rng.sample(how_to(), n // 3) + rng.sample(subject_less, n - n // 3)


def under_system_messages(rng: random.Random, n: int) -> list[Case]:
    """With a system message before it, short or up to 500 words."""
    cases = []
    for i, case in enumerate(mixed(rng, n)):
        text = rng.choice(table("system")["short"]) if i % 2 else corpus.prose(rng.choice((50, 200, 500)), rng)
        cases.append(Case(case.says, case.is_right, [("system", text)]))
    return cases


def after_long_history(rng: random.Random, n: int) -> list[Case]:
    """A name told at the start, then some 1,500 tokens of chat; half of the cases ask for the name."""
    cases = []
    unseen = table("subjects")["held_out_names"]
    for i, case in enumerate(mixed(rng, n)):
        talk = corpus.Talk(rng)
        name = unseen[i % len(unseen)]
        talk.chat += [("user", f"hello, my name is {name}"), ("assistant", people.greet(name))]
        while talk.n_characters() < 3800:
            talk.add_turn(rng.choice(("topic", "fact", "talk", "unknown", "list", "story")))
            if talk.n_characters() > 4600:  # the question and the answer must still fit into 2,048 tokens
                del talk.chat[-2:]
        if i % 2:
            case = Case([pattern("names", "held_out_ask", rng)], exactly(people.recall(name)))
        cases.append(Case(case.says, case.is_right, talk.chat))
    return cases


def all_groups(seed: int) -> dict[str, list[Case]]:
    """The rows of the table."""
    rng = random.Random(seed)
    page: dict[str, Any] = table("subjects")
    return {
        "who it is, small talk": small_talk(),
        "using Linnet": how_to(),
        "facts": facts(rng),
        "facts, small letters": facts(rng, small=True)[::3],
        "sums": calculations("+", rng, 100),
        "differences": calculations("-", rng, 100),
        "known names, two turns later": names(page["names"], rng, 60),
        "names never seen, two turns later": names(page["held_out_names"], rng, 60),
        "stories (28 of 60 about things never seen)": tales(rng),
        "lists, counting, poems": poems_and_lists(rng),
        "says words after the user": echoes(rng, 50),
        "says that it does not know": unknown(rng),
        "all kinds, under a system message": under_system_messages(rng, 60),
        "all kinds and names, after 1,500 tokens of chat": after_long_history(rng, 60),
    }
