"""Little stories and short poems about whatever is asked for; the subject comes early and again and again."""

import random
from dataclasses import dataclass

from models.demo.asking import invented
from models.demo.tables import Turn, a_or_an, capital, fill, pattern, table
from models.demo.wording import vary


@dataclass(frozen=True)
class Subject:
    """Whom a story is about, as it is asked for, first mentioned, and called from then on."""

    asked: str
    first: str
    name: str


def invented_name(rng: random.Random) -> str:
    """A name, mostly one that nobody has: made of syllables, or of the head and the tail of two names."""
    names = table("subjects")["names"]
    dice = rng.random()
    if dice < 0.25:
        return str(rng.choice(names))
    if dice < 0.65:
        head, tail = rng.choice(names), rng.choice(names)
        name = head[: rng.randrange(2, 5)] + tail[-rng.randrange(2, 5) :].lower()
    else:
        name = capital(invented(rng))
    return name if name not in table("subjects")["held_out_names"] else "Anna"


def subject(rng: random.Random) -> Subject:
    """An animal, a thing, somebody; nearly a third are words that do not exist, so that it learns to copy."""
    page = table("subjects")
    noun = rng.choice(page[rng.choice(("animals", "animals", "things", "people"))])
    dice = rng.random()
    if dice < 0.30:
        noun = invented(rng)
    if dice > 0.92:
        name = invented_name(rng)
        return Subject(name, f"someone called {name}", name)
    if dice > 0.86:
        return Subject(f"{noun}s", a_or_an(noun), f"the {noun}")
    first = a_or_an(f"{rng.choice(page['kinds_of'])} {noun}") if rng.random() < 0.3 else a_or_an(noun)
    if rng.random() < 0.25:
        name = invented_name(rng)
        called = rng.choice(("called", "named", "with the name"))
        return Subject(f"{first} {called} {name}", f"{first} called {name}", name)
    if rng.random() < 0.15:
        return Subject(f"the {noun}", a_or_an(noun), f"the {noun}")
    return Subject(first, first, f"the {noun}")


def tell(who: Subject, n_plots: int, rng: random.Random) -> str:
    """A story of one plot or of several, in paragraphs."""
    page = table("stories")
    words = {"s": who.name, "S": capital(who.name), "new": who.first, "place": rng.choice(page["places"])}
    paragraphs = [" ".join((rng.choice(page["opening"]), rng.choice(page["nature"])))]
    friends, things = rng.sample(page["friends"], n_plots), rng.sample(page["things"], n_plots)
    for plot, friend, thing in zip(rng.sample(page["plot"], n_plots), friends, things, strict=True):
        sentences = [rng.choice(slot) for slot in plot["slots"]]
        known = "the " + friend.split(" ", 1)[1]
        local = {"friend": friend, "Friend": capital(friend), "thing": thing}
        local |= {"the_friend": known, "The_friend": capital(known)}
        paragraphs += [fill(" ".join(part), **local) for part in (sentences[:4], sentences[4:])]
    paragraphs.append(rng.choice(page["closing"]))
    return fill("\n\n".join(paragraphs), **words)


def story(rng: random.Random) -> Turn:
    """A story asked for and told."""
    if rng.random() < 0.08:
        return vary(pattern("stories", "any_story", rng), rng), tell(Subject("", "a young linnet called Pip", "Pip"), 1, rng)
    who = subject(rng)
    long = rng.random() < 0.15
    asked = fill(vary(pattern("stories", "long_story" if long else "story", rng), rng), x=who.asked)
    return asked, tell(who, 2 if long else 1, rng)


def poem(rng: random.Random) -> Turn:
    """A poem of three couplets, which keep their order from morning to night."""
    who = subject(rng)
    couplets = table("stories")["poem_couplets"]
    chosen = sorted(rng.sample(range(len(couplets)), 3))
    text = "\n".join(line for i in chosen for line in couplets[i])
    asked = fill(vary(pattern("stories", "poem", rng), rng), x=who.asked)
    return asked, fill(text, s=who.name, S=capital(who.name)).replace("\nthe ", "\nThe ")
