"""The corpus: an endless row of chats made from the topics, facts, sums, stories and the rest.

The same seed gives the same chats. `python -m models.demo.corpus` prints some.
"""

import itertools
import random
from collections.abc import Iterator

from models.demo import asking, lists, people, stories, sums
from models.demo.tables import Chat, Turn, fill, table

N_MILLION = "5.6"  # parameters; export.py checks it

# How often each group is asked. Sums that are not in the last turn teach nothing: the template strips their thinking
# from the history, so they are left to the end of a chat.
WEIGHTS = {"topic": 30, "fact": 13, "talk": 18, "unknown": 24, "story": 2.5, "list": 9, "poem": 1.5}
WEIGHTS |= {"sum": 2, "tell": 10, "name": 8, "echo": 9}
LAST_WEIGHTS = WEIGHTS | {"sum": 16, "tell": 5, "name": 26}


class Talk:
    """One chat in the making; it knows what name the user has told."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.name: str | None = None
        self.chat: Chat = []

    def add_system(self, n_words: int) -> None:
        """A system message: one of the short ones, or prose of about so many words."""
        text = self.rng.choice(table("system")["short"]) if n_words < 20 else prose(n_words, self.rng)
        self.chat.append(("system", text))

    def add_turn(self, group: str) -> None:
        """A question of this group and its answer."""
        question, answer = self._turn(group)
        self.chat += [("user", question), ("assistant", answer)]

    def add_any(self, last: bool) -> None:
        """A turn of any group. Before a name is asked for it is told, mostly: else "not told yet" is a safe guess."""
        weights = LAST_WEIGHTS if last else WEIGHTS
        group = self.rng.choices(list(weights), list(weights.values()))[0]
        if group == "name" and not self.name and self.rng.random() < 0.8:
            self.add_turn("tell")
            for _ in range(self.rng.choice((0, 1, 1, 2, 3))):
                self.add_turn(self.rng.choice(("topic", "fact", "talk", "unknown", "topic")))
        self.add_turn(group)

    def _turn(self, group: str) -> Turn:
        rng = self.rng
        if group == "tell":
            self.name, turn = people.tell(self.name, rng)
            return turn
        if group == "name":
            return people.ask(self.name, rng)
        if group == "talk":
            question, answer = asking.topic("smalltalk", rng)
            return question, fill(answer, million=N_MILLION)
        if group == "topic":
            return asking.topic("topics", rng)
        simple = {
            "fact": asking.fact,
            "echo": asking.echo,
            "sum": sums.ask,
            "story": stories.story,
            "poem": stories.poem,
            "list": lists.ask,
        }
        return simple[group](rng) if group in simple else self._unknown()

    def _unknown(self) -> Turn:
        if self.rng.random() < 0.03:
            text = prose(self.rng.randrange(30, 150), self.rng)
            wish = self.rng.choice(("summarize this: ", "", "translate: ", "what do you think? "))
            return wish + text, table("unknown")["answer"]
        return asking.unknown(self.rng)

    def n_characters(self) -> int:
        """How long the chat is by now."""
        return sum(len(content) for _, content in self.chat)


def prose(n_words: int, rng: random.Random) -> str:
    """Text about nothing in particular, as it stands in long system messages and pasted documents."""
    page, unknown = table("system"), table("unknown")
    text = ""
    while text.count(" ") < n_words:
        words = {key: asking.invented(rng) if rng.random() < 0.15 else rng.choice(unknown["nouns"]) for key in "xyz"}
        sentence = fill(rng.choice(page["frames"]), **words, v=rng.choice(unknown["verbs"]), n=str(rng.randrange(2000)))
        text += sentence + rng.choice((" ", " ", " ", "\n", "\n\n"))
    return text.strip()


def chats(seed: int) -> Iterator[Chat]:
    """Short chats of one to six turns."""
    rng = random.Random(seed)
    while True:
        talk = Talk(rng)
        if rng.random() < 0.2:
            talk.add_system(rng.choice((5, 5, 5, 5, 30, 60)))
        n_turns = rng.choices((1, 2, 3, 4, 5, 6), (50, 18, 13, 9, 6, 4))[0]
        for i in range(n_turns):
            talk.add_any(last=i == n_turns - 1)
        yield talk.chat


def long_chats(seed: int) -> Iterator[Chat]:
    """Chats that fill a good part of the context; some have a system message of hundreds of words."""
    rng = random.Random(seed)
    while True:
        talk = Talk(rng)
        if rng.random() < 0.4:
            talk.add_system(rng.choice((5, 100, 200, 400, 700)))
        n_characters = rng.choice((1500, 3000, 5000, 6000))
        while talk.n_characters() < n_characters:
            talk.add_any(last=False)
        talk.add_any(last=True)
        yield talk.chat


def main() -> None:
    """Prints some chats."""
    for chat in itertools.islice(chats(seed=1), 25):
        print("\n".join(f"{role}: {content}" for role, content in chat), end="\n\n")


if __name__ == "__main__":
    main()
