"""What an answer must look like: a JSON schema as a GBNF grammar, and a grammar that says which tokens may come next.

The schemas are those of `api.schema.honoured`; another one may hold them, each with its own "$defs". llama-cpp-python's
converter is not used: it lets raw newlines into strings, does not escape backslashes, and mixes up rules of one name.
"""

from __future__ import annotations

import ctypes
import functools
import json
import time
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np

from engine.constraint import GrammarError
from engine.native.candidates import CANDIDATE, as_array
from engine.native.vocabulary import Vocabulary

MOST = 10**16 - 1  # of a number's whole part
SLOWEST_S = 1.0  # of computing for one token: a grammar that can be read in many ways takes ever longer
# Characters that JSON writes as themselves. Not as "all but …": llama.cpp would take bytes for one that UTF-8 has not.
PLAIN = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, 0x10FFFF)]
BASE = r"""
space ::= " "?
plain ::= [\x20-\x21\x23-\x5B\x5D-\x7E\x80-\uD7FF\uE000-\U0010FFFF]
hex ::= [0-9a-fA-F]
char ::= plain | "\\" (["\\/bfnrt] | "u" ([0-9abcefABCEF] hex | [dD] [0-7]) hex hex)
string ::= "\"" char* "\""
fraction ::= "." [0-9]{1,16}
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer fraction? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
object ::= "{" space (string ":" space value ("," space string ":" space value)* space)? "}"
array ::= "[" space (value ("," space value)* space)? "]"
value ::= object | array | string | number | boolean | null
uuid ::= hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}
leap ::= [1-9] [0-9] ("0" [48] | [2468] [048] | [13579] [26]) | ([2468] [048] | [13579] [26]) "00"
day28 ::= "0" [1-9] | "1" [0-9] | "2" [0-8]
day30 ::= day28 | "29" | "30"
month-day ::= ("0" [13578] | "1" [02]) "-" (day30 | "31") | ("0" [469] | "11") "-" day30 | "02-" day28
date ::= [1-9] [0-9]{3} "-" month-day | leap "-02-29"
clock ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]
time ::= clock ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [-+] clock)
date-time ::= date "T" time
"""


def gbnf(schema: dict[str, Any], opening: str = "", closing: str = "", many: bool = False) -> str:
    """A grammar for JSON of this schema between two literals; `many`: one or more of these. Raises GrammarError."""
    try:
        rules = _Writer(schema).rules
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise GrammarError(f"The schema cannot be made a grammar: {error!r}.") from error
    rules["one"] = f"{literal(opening)} v0 {literal(closing)}"
    rules["root"] = r'one ("\n"? one)*' if many else "one"
    return BASE + "\n".join(f"{name} ::= {rule}" for name, rule in rules.items()) + "\n"


class Grammar:
    """A grammar somewhere in a text, which begins with its rule `root`. Not thread-safe."""

    def __init__(self, vocabulary: Vocabulary, text: str, root: str = "root") -> None:
        self._sampler: Any = None
        if not text or "\0" in text:  # llama.cpp takes an empty grammar for none, which allows everything
            raise GrammarError("The grammar is empty or holds a NUL.")
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise GrammarError("The grammar is not valid Unicode.") from error
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocabulary.pointer, raw, root.encode())
        if not self._sampler:
            raise GrammarError("The grammar is not valid: llama.cpp cannot read it.")
        self._control = vocabulary.control
        self._rows = np.zeros(len(self._control), CANDIDATE)
        self._rows["id"] = np.arange(len(self._rows))

    def allows(self, token: int) -> bool:
        """Whether this token may come next; one that ends the answer: whether it may end here."""
        if not 0 <= token < len(self._rows) or self._control[token]:
            return False
        row = np.zeros(1, CANDIDATE)
        row["id"] = token
        self._apply(row)
        return bool(row["logit"][0] == 0)

    def mask(self, logits: np.ndarray) -> np.ndarray:
        """(n_vocab,) a copy, -inf where a token may not come next; all of it where the grammar has come to a dead end."""
        self._rows["logit"] = logits
        self._apply(self._rows)
        masked = self._rows["logit"].copy()
        masked[self._control] = -np.inf
        return masked

    def accept(self, token: int) -> None:
        """Goes on behind this token. Raises GrammarError when it may not come next (llama.cpp would end the process)."""
        if not self.allows(token):
            raise GrammarError(f"The grammar does not allow token {token} here.")
        self._call(llama_cpp.llama_sampler_accept, token)

    def close(self) -> None:
        """Frees it; once is enough."""
        if self._sampler:
            llama_cpp.llama_sampler_free(self._sampler)
        self._sampler = None

    def _apply(self, rows: np.ndarray) -> None:
        self._call(llama_cpp.llama_sampler_apply, ctypes.byref(as_array(rows)))

    def _call(self, function: Callable[..., None], argument: Any) -> None:
        if not self._sampler:
            raise GrammarError("The grammar is closed.")
        started = time.thread_time()
        function(self._sampler, argument)
        if time.thread_time() - started > SLOWEST_S:
            raise GrammarError("The grammar can be read in too many ways: it takes too long to follow.")


class _Writer:
    """One rule `v…` for each schema, v0 for the first; no recursion, so no schema is too deep."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.rules: dict[str, str] = {}
        self._names: dict[tuple[int, str], str] = {}  # (id of the "$defs", "$ref") -> rule
        self._n_names = 0
        self._todo: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self._rule(schema, {})
        while self._todo:
            name, schema, defs = self._todo.pop()
            self.rules[name] = self._body(name, schema, defs)

    def _rule(self, schema: dict[str, Any], defs: dict[str, Any]) -> str:
        defs = schema.get("$defs", defs)
        name = f"v{self._n_names}"
        if "$ref" in schema:
            known = self._names.setdefault((id(defs), schema["$ref"]), name)
            if known != name:
                return known
            schema = defs[schema["$ref"].removeprefix("#/$defs/")]
        self._n_names += 1
        self._todo.append((name, schema, defs))
        return name

    def _body(self, name: str, schema: dict[str, Any], defs: dict[str, Any]) -> str:
        match schema:
            case {"anyOf": options}:
                return " | ".join(self._rule(option, defs) for option in options)
            case {"const": value}:
                return literal(_json(value))
            case {"enum": values}:
                return " | ".join(dict.fromkeys(literal(_json(value)) for value in values))
            case {"type": "object"}:
                return self._object(name, schema, defs)
            case {"type": "array"}:
                return self._array(name, schema, defs)
            case {"type": "string", "pattern": pattern}:
                return rf'"\"" ({pattern[1:-1]}) "\""'
            case {"type": "string", "format": format}:
                return rf'"\"" {format} "\""'
            case {"type": "string"}:
                return rf'"\"" char{_times(schema.get("minLength", 0), schema.get("maxLength"))} "\""'
            case {"type": "integer" | "number" as kind}:
                low, high = schema.get("minimum"), schema.get("maximum")
                if low is None and high is None:
                    return kind
                return _between(kind, -MOST if low is None else low, MOST if high is None else high)
            case {"type": "boolean" | "null" as kind}:
                return kind
        if schema.keys() - {"$defs"}:
            raise ValueError(schema)
        return "value"

    def _array(self, name: str, schema: dict[str, Any], defs: dict[str, Any]) -> str:
        if "prefixItems" in schema:
            return (
                r'"[" space ' + ' "," space '.join(self._rule(item, defs) for item in schema["prefixItems"]) + ' space "]"'
            )
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[" space "]"'
        item = self._rule(schema.get("items", {}), defs)
        self.rules[f"{name}-more"] = f'"," space {item}'
        items = f"{item} {name}-more{_times(max(least - 1, 0), most and most - 1)} space"
        return f'"[" space {items} "]"' if least else f'"[" space ({items})? "]"'

    def _object(self, name: str, schema: dict[str, Any], defs: dict[str, Any]) -> str:
        """Members come in the schema's order. `a…`: nothing stands before this member, `b…`: something does."""
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties", False)
        if extra is False:
            none, rest = '""', "space"
        else:
            member = f'{self._other_key(name, list(properties))} ":" space {self._rule(extra, defs)}'
            none, rest = f'({member} ("," space {member})* space)?', f'("," space {member})* space'
        for i, (key, value) in enumerate(properties.items()):
            self.rules[f"{name}-k{i}"] = f"{literal(_json(key) + ':')} space {self._rule(value, defs)}"
            member, optional = f"{name}-k{i} {name}-b{i + 1}", key not in schema.get("required", [])
            self.rules[f"{name}-a{i}"] = member + (f" | {name}-a{i + 1}" if optional else "")
            self.rules[f"{name}-b{i}"] = f'"," space {member}' + (f" | {name}-b{i + 1}" if optional else "")
        self.rules[f"{name}-a{len(properties)}"] = none
        self.rules[f"{name}-b{len(properties)}"] = rest
        return f'"{{" space {name}-a0 "}}"'

    def _other_key(self, name: str, keys: list[str]) -> str:
        """Any key but these, spelled without escapes: one rule for each beginning of a key."""
        keys = [key for key in keys if _json(key) == f'"{key}"' and "\x7f" not in key]
        follow: dict[str, dict[str, None]] = {"": {}}
        for key in keys:
            for i, letter in enumerate(key):
                follow[key[:i]][letter] = None
                follow.setdefault(key[: i + 1], {})
        rules = {start: f"{name}-o{i}" for i, start in enumerate(follow)}
        for start, letters in follow.items():
            ways = [f"{literal(letter)} {rules[start + letter]}" for letter in letters]
            ways.append(rf'{_plain_but("".join(letters))} plain* "\""')
            self.rules[rules[start]] = " | ".join(ways if start in keys else [*ways, r'"\""'])
        return rf'"\"" {rules[""]}' if keys else "string"


@functools.lru_cache(maxsize=256)
def _plain_but(letters: str) -> str:
    """Not [^…]: that would refuse all characters whose first bytes are those of one of the letters."""
    found = []
    for low, high in PLAIN:
        for code in sorted(map(ord, letters)):
            if low <= code <= high:
                found.append((low, code - 1))
                low = code + 1
        found.append((low, high))
    return "[" + "".join(f"\\U{low:08X}-\\U{high:08X}" for low, high in found if low <= high) + "]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def literal(text: str) -> str:
    """This very text, as GBNF writes it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"}
    return '"' + "".join(escapes.get(letter, letter) for letter in text) + '"'


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _between(kind: str, low: int, high: int) -> str:
    """Numbers from low to high: minus signs and sizes."""
    whole = kind == "integer"
    ways = []
    if low < 0:
        ways.append(f'"-" ({_sizes(max(int(whole), -high), -low, whole)})')
    if high >= 0:
        ways.append(_sizes(max(low, 0), high, whole))
    return " | ".join(ways)


def _sizes(low: int, high: int, whole: bool) -> str:
    if whole or low == high:
        return _digits(low, high)
    return f"({_digits(low, high - 1)}) fraction? | {_digits(high, high)}"


def _digits(low: int, high: int) -> str:
    ways = []
    for n in range(len(str(low)), len(str(high)) + 1):
        ways.append(_same_length(str(max(low, 10 ** (n - 1) if n > 1 else 0)), str(min(high, 10**n - 1))))
    return " | ".join(ways)


def _same_length(low: str, high: str) -> str:
    """Digits from low to high, both of one length."""
    n = len(low) - 1
    if not low or (low[1:] == "0" * n and high[1:] == "9" * n):
        return f"[{low[0]}-{high[0]}] [0-9]{{{n}}}" if low else '""'
    if low[0] == high[0]:
        return f'"{low[0]}" ({_same_length(low[1:], high[1:])})'
    ways = [f'"{low[0]}" ({_same_length(low[1:], "9" * n)})', f'"{high[0]}" ({_same_length("0" * n, high[1:])})']
    if int(high[0]) - int(low[0]) > 1:
        ways.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}] [0-9]{{{n}}}")
    return " | ".join(ways)
