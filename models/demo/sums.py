"""Sums and differences of numbers up to 99, worked out digit by digit between <think> and </think>."""

import random

from models.demo.tables import Turn, fill, pattern
from models.demo.wording import vary

SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(n: int) -> str:
    """42 is forty-two."""
    if n < 20:
        return SMALL[n]
    return TENS[n // 10 - 2] + (f"-{SMALL[n % 10]}" if n % 10 else "")


def work_out_sum(a: int, b: int) -> str:
    """Units, carry, tens."""
    units = a % 10 + b % 10
    tens = a // 10 + b // 10 + units // 10
    return (
        f"{a} + {b}: units {a % 10} + {b % 10} = {units}, write {units % 10}, carry {units // 10}. "
        f"tens {a // 10} + {b // 10} + {units // 10} = {tens}."
    )


def work_out_difference(a: int, b: int) -> str:
    """The larger number comes first: a difference below zero is turned round."""
    high, low = max(a, b), min(a, b)
    borrow = int(high % 10 < low % 10)
    units = high % 10 + 10 * borrow - low % 10
    turned = f"{a} is less, turn round: {b} - {a}, minus. " if a < b else ""
    lent = f"borrow 1, {high % 10 + 10}" if borrow else f"borrow 0, {high % 10}"
    tens = high // 10 - low // 10 - borrow
    return f"{a} - {b}: {turned}units {lent} - {low % 10} = {units}. tens {high // 10} - {borrow} - {low // 10} = {tens}."


def answer(a: int, b: int, sign: str) -> str:
    """What the model has to say: its working, then the plain answer."""
    working = work_out_sum(a, b) if sign == "+" else work_out_difference(a, b)
    return f"<think>\n{working}\n</think>\n\n{a} {sign} {b} = {a + b if sign == '+' else a - b}."


def number(rng: random.Random) -> int:
    """Up to 99; the small ones, which people ask most, more often."""
    return rng.randrange(100) if rng.random() < 0.75 else rng.randrange(11)


def ask(rng: random.Random) -> Turn:
    """A question and its answer."""
    a, b = number(rng), number(rng)
    sign = rng.choice("+-")
    question = vary(pattern("sums", "add" if sign == "+" else "subtract", rng), rng, courtesy=0.15)
    if rng.random() < 0.12 and sign not in question:
        return fill(question, a=in_words(a), b=in_words(b)), answer(a, b, sign)
    return fill(question, a=str(a), b=str(b)), answer(a, b, sign)
