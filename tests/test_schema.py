"""api.schema and engine.native.grammar: what a schema refuses, no answer can hold; what cannot be had is refused."""

import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.schema import SchemaError, check_grammar, honoured
from engine.constraint import GrammarError
from engine.native.grammar import Grammar, gbnf
from engine.native.model import Model
from engine.native.vocabulary import Vocabulary
from engine.request import Config
from tests.conftest import DEMO

LONG_TEXT = "x" * 300


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Vocabulary]:
    model = Model(Config(str(DEMO), 64, 1, 1), 16, 2)
    yield model.vocabulary  # which is the model's: it must not be gone
    del model


@pytest.fixture(scope="module")
def end(vocabulary) -> int:
    return next(token for token in range(vocabulary.n_tokens) if vocabulary.ends(token))


def follows(vocabulary: Vocabulary, grammar: str, text: str, *, to_its_end: bool = True) -> bool:
    """Whether the grammar lets this text pass, token by token, and then end."""
    state = Grammar(vocabulary, grammar)
    try:
        for token in vocabulary.tokenize(text, add_bos=False):
            if not state.allows(token):
                return False
            state.accept(token)
        end = next(token for token in range(vocabulary.n_tokens) if vocabulary.ends(token))
        return state.allows(end) or not to_its_end
    finally:
        state.close()


def members(**properties: Any) -> dict[str, Any]:
    """An object that has just these."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


INTEGER, STRING = {"type": "integer"}, {"type": "string"}
TREE = {"$defs": {"t_1": members(kids={"type": "array", "items": {"$ref": "#/$defs/t_1"}})}, "$ref": "#/$defs/t_1"}
ODD_NAMES = ['"', "\\", "a b", "é", "😀", "\n", "", "\0", "*", "root", "additional", "item", "kv", "string", "v0", "\u2028"]
NAMES_ALIKE = {
    "$defs": {"a": {"enum": [1]}, "b": {"$defs": {"a": {"enum": [2]}}}},
    **members(a={"enum": [3]}, x={"$ref": "#/$defs/a"}, y={"$ref": "#/$defs/b/$defs/a"}, **{"a-b": INTEGER}),
}
# A schema, values that it allows, values that it does not.
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (True, [1, "a", None, True, 1.5e10, [], {}, {"a": [{"b": [1, -2]}]}], []),
    ({}, [0, "", [1]], []),
    ({"type": "object"}, [{}, {"a": 1}], [1, [], "a"]),
    ({"type": "array"}, [[], [1, "a"]], [{}, 1]),
    (STRING, ["", "a", 'q"\\\n\t', "é😀"], [1, None, ["a"]]),
    (INTEGER, [0, -1, 12345], [1.5, "1", True]),
    ({"type": "number"}, [0, -1.25, 1e20], ["1", None]),
    ({"type": "boolean"}, [True, False], [0, "true"]),
    ({"type": "null"}, [None], [0, ""]),
    ({"type": ["string", "null"], "minLength": 2}, ["ab", None], ["a", 1]),
    ({"minLength": 2}, ["ab"], ["a"]),
    ({"type": ["integer", "number", "array"], "maxItems": 1}, [1, 1.5, [1]], [[1, 2]]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é😀a", '"\\\n'], ["a", "abcd"]),
    ({"type": "string", "maxLength": 1000}, ["", LONG_TEXT], [LONG_TEXT * 4]),
    ({"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
    ({"type": "array", "items": INTEGER, "minItems": 2}, [[1, 2], [1] * 9], [[1], []]),
    ({"type": "array", "items": INTEGER, "maxItems": 1000}, [[], [1] * 99], [["a"]]),
    ({"type": "array", "items": INTEGER, "maxItems": 0}, [[]], [[1]]),
    ({"type": "array", "maxItems": 1}, [[], [{}]], [[1, 1]]),
    ({"type": "array", "prefixItems": [INTEGER, STRING], "items": False}, [[1, "a"]], [[1], ["a", 1], [1, "a", 2]]),
    (members(a=INTEGER, b=STRING), [{"a": 1, "b": "x"}], [{"a": 1}, {}, {"b": "x"}, {"a": "1", "b": "x"}]),
    ({"properties": {"a": INTEGER, "b": INTEGER}}, [{}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2}], [{"c": 1}, {"a": "x"}, 1]),
    ({"type": "object", "properties": {}}, [{}], [{"a": 1}]),
    ({"properties": {"a": INTEGER, "b": INTEGER}, "required": ["b"]}, [{"b": 1}, {"a": 1, "b": 1}], [{}, {"a": 1}]),
    ({"type": "object", "required": ["a"]}, [{"a": 1}, {"a": {}, "b": 1}], [{}, {"b": 1}]),
    ({"type": "object", "additionalProperties": INTEGER}, [{}, {"a": 1, "b": 2}], [{"a": "x"}]),
    (
        {"properties": {"ab": INTEGER, "abc": INTEGER}, "additionalProperties": STRING},
        [{"ab": 1, "x": "y"}, {"ab": 1, "abd": "x"}, {"a": "x"}, {"abcd": "x"}, {"": "x"}, {"b": ""}],
        [{"ab": "x"}, {"abc": "x"}, {"a": 1}],
    ),
    ({"anyOf": [INTEGER, {"type": "null"}]}, [1, None], ["a", 1.5]),
    ({"oneOf": [members(a=INTEGER), members(b=STRING)]}, [{"a": 1}, {"b": "x"}], [{"a": "x"}, {}]),
    ({"enum": ["a", 'b"\\\n', "é", 1, None, [1]]}, ["a", 'b"\\\n', "é", 1, None, [1]], ["b", 2, {}]),
    ({"type": "string", "enum": ["a", 1]}, ["a"], [1, "b"]),
    ({"const": "x"}, ["x"], ["y"]),
    ({"allOf": [INTEGER], "title": "T"}, [1], ["a"]),
    ({"type": "integer", "minimum": 0, "maximum": 120}, [0, 7, 42, 99, 100, 120], [-1, 121, 130, 200, 1000]),
    ({"type": "integer", "minimum": -15, "exclusiveMaximum": 3}, [-15, -9, -1, 0, 2], [-16, -20, 3, 10]),
    ({"type": "integer", "exclusiveMinimum": 0}, [1, 10, 999], [0, -1]),
    ({"type": "integer", "maximum": -2}, [-2, -10, -345], [-1, 0, 2]),
    ({"type": "integer", "minimum": 987, "maximum": 2105}, [987, 999, 1000, 1999, 2000, 2105], [986, 2106, 100, 3000]),
    ({"type": "number", "minimum": 0, "maximum": 1}, [0, 0.5, 0.75, 1], [-1, -0.5, 1.5, 2, 10]),
    ({"type": "number", "minimum": -2}, [-2, -1.5, -0.5, 0, 12.25], [-2.5, -3, -12]),
    ({"pattern": "^[A-Z]{2}-\\d+(?:\\.[^x]?)?$"}, ["AB-1", "AB-123.", "AB-1.é"], ["AB-", "ab-1", "AB-1.x"]),
    ({"type": "string", "pattern": "^(a|b.)*\\w\\S$"}, ["ab", "xy", "ab1Zé"], ["a", "b ", '"']),
    ({"pattern": "^$"}, [""], ["a"]),
    ({"pattern": "^a|bc$"}, ["a", "bc"], ["b", "ac"]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-13-01", "2024-04-31"]),
    ({"type": "string", "format": "date-time"}, ["2024-01-02T23:59:59.5+01:00"], ["2024-01-02T24:00:00Z"]),
    ({"type": "string", "format": "time"}, ["03:04:05Z"], ["3:4", "25:00:00Z"]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
    (TREE, [{"kids": []}, {"kids": [{"kids": []}, {"kids": [{"kids": []}]}]}], [{"kids": [1]}, {}]),
    ({"properties": {"next": {"$ref": "#"}}}, [{}, {"next": {"next": {}}}], [{"next": 1}]),
    (NAMES_ALIKE, [{"a": 3, "x": 1, "y": 2, "a-b": 5}], [{"a": 1, "x": 1, "y": 2, "a-b": 5}]),
    ({"$defs": {"a/b~%": INTEGER}, "$ref": "#/$defs/a~1b~0%25"}, [1], ["a"]),
    ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, INTEGER]}}, "$ref": "#/$defs/a"}, [1], ["a"]),
    (members(**{name: {"const": i} for i, name in enumerate(ODD_NAMES)}), [{n: i for i, n in enumerate(ODD_NAMES)}], [{}]),
    (members(a=members(b=INTEGER), **{"a-b": STRING}), [{"a": {"b": 1}, "a-b": "x"}], [{"a": {"b": "x"}, "a-b": "x"}]),
]  # fmt: skip


@pytest.mark.parametrize("schema,allowed,others", CASES, ids=lambda value: json.dumps(value)[:60])
def test_an_answer_holds_what_the_schema_allows_and_nothing_else(vocabulary, schema, allowed, others):
    grammar = gbnf(honoured(schema))
    for value in allowed:
        for ascii in (True, False):
            if ascii and re.search(r"\\ud[89ab]|\\u[0-9a-f]{4}", json.dumps(value)):
                continue  # names and constants have one spelling, with few escapes
            assert follows(vocabulary, grammar, json.dumps(value, ensure_ascii=ascii)), value
        assert follows(vocabulary, grammar, json.dumps(value, ensure_ascii=False, separators=(",", ":"))), value
    for value in others:
        assert not follows(vocabulary, grammar, json.dumps(value, ensure_ascii=False)), value


DEEP: Any = {}
for _ in range(40):
    DEEP = {"items": DEEP}
DEEPER: Any = DEEP
for _ in range(40):
    DEEPER = {"items": DEEPER}
# What is refused, and the place that the sentence names.
REFUSED: list[tuple[Any, str]] = [
    (members(age={"type": "integer", "multipleOf": 3}), "properties.age.multipleOf"),
    (members(age={"type": "number", "exclusiveMinimum": 0}), "properties.age.exclusiveMinimum"),
    (members(age={"type": "number", "minimum": 0.5}), "properties.age.minimum"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum"),
    ({"type": "integer", "minimum": "3"}, "minimum"),
    ({"type": "integer", "maximum": 10**30}, "maximum"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "object", "patternProperties": {}}, "patternProperties"),
    ({"type": "object", "minProperties": 1}, "minProperties"),
    ({"type": "object", "propertyNames": STRING}, "propertyNames"),
    ({"type": "object", "dependentRequired": {}}, "dependentRequired"),
    ({"type": "array", "contains": INTEGER}, "contains"),
    ({"not": STRING}, "not"),
    ({"if": STRING}, "if"),
    ({"type": "string", "maxLength": 1500}, "maxLength"),
    ({"type": "string", "maxLength": 1e9}, "maxLength"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength"),
    ({"type": "array", "items": {"type": "array", "maxItems": 2000}}, "items.maxItems"),
    ({"type": "array", "minItems": True}, "minItems"),
    ({"type": "array", "prefixItems": [INTEGER], "minItems": 2}, "prefixItems"),
    ({"type": "array", "prefixItems": [INTEGER], "items": INTEGER}, "items"),
    ({"type": "string", "pattern": "^a$", "maxLength": 3}, "maxLength"),
    ({"type": "string", "format": "date", "minLength": 3}, "minLength"),
    ({"type": "string", "format": "email"}, "format"),
    ({"type": "string", "format": []}, "format"),
    ({"type": "text"}, "type"),
    ({"type": []}, "type"),
    ({"type": [{}]}, "type"),
    ({"enum": []}, "enum"),
    ({"enum": "a"}, "enum"),
    ({"type": "integer", "enum": ["a", True, 1.5]}, "enum"),
    ({"enum": ["a"], "minLength": 1}, "minLength"),
    ({"enum": [1], "const": 1}, "enum"),
    ({"anyOf": []}, "anyOf"),
    ({"anyOf": [STRING], "type": "string"}, "type"),
    ({"anyOf": [STRING, {"type": "x"}]}, "anyOf.1.type"),
    ({"oneOf": [STRING], "anyOf": [STRING]}, "oneOf"),
    ({"allOf": [{"properties": {}}, {"required": ["a"]}]}, "allOf"),
    ({"allOf": [STRING], "maxLength": 1}, "maxLength"),
    ({"$ref": "#/$defs/none"}, "$ref"),
    ({"$ref": "https://example.com/s.json"}, "$ref"),
    ({"$ref": "#name"}, "$ref"),
    ({"$ref": 1}, "$ref"),
    ({"$ref": "#/items/0", "maxLength": 1}, "maxLength"),
    ({"$ref": "#"}, "only to itself"),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "only to itself"),
    ({"anyOf": [{"$ref": "#"}]}, "without an end"),
    (members(next={"$ref": "#"}), "without an end"),
    ({"items": {"$ref": "#"}, "minItems": 1}, "without an end"),
    ({"properties": {"a": False}}, "properties.a"),
    ({"properties": {"a": 1}}, "properties.a"),
    ({"properties": []}, "properties"),
    ({"required": "a"}, "required"),
    ({"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False}, "required"),
    ({"properties": {"a" * 300: True}}, "properties"),
    (False, "The schema"),
    (None, "The schema"),
    ([], "The schema"),
    (DEEP | {"nullable": True}, "nullable"),
    (DEEPER, "too large"),
    ({"anyOf": [{} for _ in range(2001)]}, "too large"),
    ({"enum": ["x" * 70_000]}, "too large"),
    ({"enum": [float("nan")]}, "not valid JSON"),
    ({"enum": ["\ud800"]}, "not valid JSON"),
    ({"anyOf": [{"type": "string", "maxLength": 1000 - i} for i in range(60)]}, "50000"),
    *(
        ({"items": {"pattern": pattern}}, "items.pattern")
        for pattern in (
            "a", "^a", "a$", "^a\\$", r"^(?=a)b$", r"^(?!a)b$", r"^(?<n>a)\k<n>$", r"^(a)\1$", r"^\bx$",
            "^a{1,3000}$", "^a{2,1}$", "^a**$", "^*$", "^(a$", "^a)$", "^[a$",
            "^[^]$", "^[]$", "^[z-a]$", "^[a-\\d]$", r"^\p{L}$", r"^\u{1F600}$",
            '^"$', "^\\\\$", "^\\n$", "^(a?)*$", "^(a|)+$", "^(a*b*){3}$", "^((a{0,100}){0,100}){0,100}$",
            "^a^b$", "^a$b$", 7, "^\\x4$",
            "^" + "(" * 100 + "a" + ")" * 100 + "$", "^" + "[a-c]{1000}" * 60 + "$",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("schema,place", REFUSED, ids=lambda value: repr(value)[:60])
def test_what_cannot_be_followed_is_refused_and_its_place_named(schema, place):
    with pytest.raises(SchemaError) as error:
        honoured(schema)
    assert place in str(error.value)
    assert len(str(error.value)) < 400


def test_a_large_schema_is_made_flat_in_no_time_whatever_it_refers_to(vocabulary):
    chain = {str(i): {"anyOf": [{"$ref": f"#/$defs/{i + 1}"}, {"$ref": f"#/$defs/{i + 1}"}]} for i in range(400)}
    flat = honoured({"$defs": chain | {"400": INTEGER}, "$ref": "#/$defs/0"})
    assert follows(vocabulary, gbnf(flat), "12")
    links = {str(i): {"properties": {"a": {"$ref": f"#/$defs/{i + 1}"}}} for i in range(600)}
    flat = honoured({"$defs": links | {"600": INTEGER}, "$ref": "#/$defs/0"})
    assert follows(vocabulary, gbnf(flat), '{"a": {"a": {}}}')


def test_many_optional_members_are_followed(vocabulary):
    schema = {"properties": {f"name{i}": INTEGER for i in range(300)}}
    assert follows(vocabulary, gbnf(honoured(schema)), '{"name7": 1, "name250": 2}')


def test_an_answer_may_stand_between_literals_once_or_many_times(vocabulary):
    flat = honoured(members(a=INTEGER))
    call = '<call "x\\">\n{"a": 1}</call>'
    once = gbnf(flat, '<call "x\\">\n', "</call>")
    assert follows(vocabulary, once, call)
    assert not follows(vocabulary, once, call * 2)
    assert not follows(vocabulary, once, '{"a": 1}')
    many = gbnf(flat, '<call "x\\">\n', "</call>", many=True)
    for text in (call, call * 2, f"{call}\n{call}"):
        assert follows(vocabulary, many, text)
    assert not follows(vocabulary, many, f"{call}\n\n{call}")
    assert not follows(vocabulary, many, "")


def test_honoured_schemas_may_stand_in_another_one_each_with_its_own_definitions(vocabulary):
    tools = {"f": honoured(members(n=INTEGER)), "g": honoured(members(s=STRING))}
    grammar = gbnf({"anyOf": [members(name={"const": name}, arguments=schema) for name, schema in tools.items()]})
    assert follows(vocabulary, grammar, '{"name": "f", "arguments": {"n": 1}}')
    assert follows(vocabulary, grammar, '{"name": "g", "arguments": {"s": "x"}}')
    assert not follows(vocabulary, grammar, '{"name": "f", "arguments": {"s": "x"}}')


def test_a_schema_that_was_not_made_flat_is_an_error(vocabulary):
    for schema in ({"$ref": "#/$defs/0"}, {"type": "x"}, {"anyOf": 1}, {"type": "integer", "minimum": "a"}):
        with pytest.raises(GrammarError):
            gbnf(schema)


def test_strings_hold_no_raw_control_characters_and_no_half_characters(vocabulary):
    grammar = gbnf(honoured({"type": "string", "maxLength": 3}))
    assert follows(vocabulary, grammar, '"\\u00e9\\n"')
    for text in ('"\n"', '"\t"', '"\\ud83d\\ude00"', '"\\x"'):
        assert not follows(vocabulary, grammar, text)


def test_control_tokens_are_no_text_of_an_answer(vocabulary):
    grammar = Grammar(vocabulary, 'root ::= [^"]*')
    spelled = [token for token in range(vocabulary.n_tokens) if not vocabulary.piece(token) and not vocabulary.ends(token)]
    assert spelled
    masked = grammar.mask(np.zeros(vocabulary.n_tokens, np.float32))
    assert not any(grammar.allows(token) or masked[token] == 0 for token in spelled)
    grammar.close()


def test_the_mask_leaves_the_scores_of_what_is_allowed_and_no_others(vocabulary, end):
    grammar = Grammar(vocabulary, 'root ::= "ab" | "c"')
    logits = np.arange(vocabulary.n_tokens, dtype=np.float32)
    for token in (b"a", b"b"):
        masked = grammar.mask(logits)
        assert [grammar.allows(token) for token in range(vocabulary.n_tokens)] == list(masked > -np.inf)
        assert (masked[masked > -np.inf] == logits[masked > -np.inf]).all()
        grammar.accept(next(t for t in np.flatnonzero(masked > -np.inf).tolist() if vocabulary.piece(t) == token))
    assert np.flatnonzero(grammar.mask(logits) > -np.inf).tolist() == [
        t for t in range(vocabulary.n_tokens) if vocabulary.ends(t)
    ]
    grammar.accept(end)
    grammar.close()


def test_a_token_that_does_not_fit_is_an_error_and_the_process_lives(vocabulary, end):
    grammar = Grammar(vocabulary, 'root ::= "ab"')
    for token in (end, vocabulary.tokenize("x", add_bos=False)[0], -1, vocabulary.n_tokens, 10**9):
        with pytest.raises(GrammarError):
            grammar.accept(token)
    grammar.close()
    grammar.close()
    with pytest.raises(GrammarError):
        grammar.allows(end)


def test_a_dead_end_shows_as_a_mask_without_any_token(vocabulary):
    grammar = Grammar(vocabulary, 'root ::= "\\x01\\U7FFFFFFF"')
    token = next(token for token in range(vocabulary.n_tokens) if vocabulary.piece(token) == b"\x01")
    grammar.accept(token)
    assert (grammar.mask(np.zeros(vocabulary.n_tokens, np.float32)) == -np.inf).all()
    grammar.close()


def test_a_grammar_that_can_be_read_in_ever_more_ways_is_given_up(vocabulary):
    grammar = Grammar(vocabulary, 'root ::= a | b\na ::= "[" root "]"\nb ::= "[" root "," root "]"\n')
    token = next(token for token in range(vocabulary.n_tokens) if vocabulary.piece(token) == b"[")
    with pytest.raises(GrammarError, match="too many ways"):
        for _ in range(40):
            grammar.accept(token)
    grammar.close()


GATED = [
    'root ::= "' + "a" * 70_000 + '"',
    'root ::= "a\0"',
    'root ::= "\ud800"',
    "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000,
    "root ::= " + "(" * 201 + '"a"' + ")" * 201,
    'root ::= "a"{1,3000}',
    'root ::= "a"{ 3000 }',
    'root ::= "a"{99999999999999999999999}',
    'root ::= "a"{1, # }\n3000}',
    'start ::= "root ::= a"',
    '# root ::= "a"\nstart ::= "a"',
    "",
    'root ::= <[1]> "a"',
    'root ::= "' + "a" * 60_000 + '"{1000}',
    'root ::= "b" a0\n' + "\n".join(f'a{i} ::= a{i + 1} | a{i + 1} "x"' for i in range(18)) + '\na18 ::= "a"',
    'root ::= "b" ' + "(" * 18 + '"a"' + ' | "a")' * 18 + ("\na ::= " + "b? " * 6000 + '\nb ::= "x"'),
    "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(3000)) + '\nr3000 ::= "a"',
]
INVALID = [
    "root ::= (",
    "root ::= none",
    'root ::= root "a"',
    'root ::= "\\q"',
    "root ::= [a",
    "root",
    'root ::= "a"**',
    "root ::= )",
]


@pytest.mark.parametrize("text", GATED, ids=lambda text: repr(text)[:40])
def test_a_grammar_that_would_end_the_process_is_refused_before_it_gets_there(text):
    with pytest.raises(SchemaError):
        check_grammar(text)


@pytest.mark.parametrize("text", [*INVALID, "", "\0", "root ::= \ud800", 'a ::= "b"'])
def test_an_invalid_grammar_is_an_error_and_the_process_lives(vocabulary, text):
    with pytest.raises(GrammarError):
        Grammar(vocabulary, text)


def test_a_good_grammar_passes_the_gate_and_is_followed(vocabulary):
    text = '# a list\nroot ::= (item "\\n"){1,3}\n\nitem ::= "- " [^\\n()"\\]]{1,100} # ((((\n' + 'x ::= "((("\n' * 100
    check_grammar(text)
    assert follows(vocabulary, text, "- tea\n- milk\n")
    assert not follows(vocabulary, text, "tea")


def test_a_long_list_of_words_and_rules_in_circles_pass_the_gate(vocabulary):
    words = 'root ::= word ("-" root)?\nword ::= ' + " | ".join(f'"word{i}"' for i in range(2000))
    check_grammar(words)
    check_grammar('root ::= value\nvalue ::= "[" s (value ("," s value)*)? "]" s | [0-9]+ s | s{0,9} "x"\ns ::= [ ]*')
    assert follows(vocabulary, words, "word7-word1999")


PATTERNS = ("^[a-c]{2,4}$", "^(x|\\d\\.)+$", "^.\\W[^a-z]?$", "^\\s\\S\\D$", "^[\\w-]{3}[^\\s]$")
scalars = st.sampled_from(
    [STRING, INTEGER, {"type": "number"}, {"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}]
    + [{"enum": ["a", 'é"', 2]}]
    + [{"type": "string", "pattern": p} for p in PATTERNS]
    + [{"type": "string", "format": f} for f in ("uuid", "date", "time", "date-time")]
    + [{"$ref": "#/$defs/self"}, {"const": {"x": ["\\"]}}, True]
)  # fmt: skip
counts = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(sorted)
bounds = st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)).map(sorted)
ranged = st.builds(
    lambda t, b: {"type": t, "minimum": b[0], "maximum": b[1]}, st.sampled_from(["integer", "number"]), bounds
)
sized = st.builds(lambda c: {"type": "string", "minLength": c[0], "maxLength": c[1]}, counts)
names = st.sampled_from(["a", "b", "ab", "root", 'q"', "\\", "é", "-", ""])


def larger(inner):
    objects = st.builds(
        lambda properties, required, extra: {"type": "object", "properties": properties, "required": required} | extra,
        st.dictionaries(names, inner, max_size=4),
        st.lists(names, unique=True, max_size=2),
        st.one_of(st.just({}), st.builds(lambda value: {"additionalProperties": value}, inner)),
    )
    arrays = st.builds(lambda items, c: {"type": "array", "items": items, "minItems": c[0], "maxItems": c[1]}, inner, counts)
    return objects | arrays | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3))


schemas = st.recursive(scalars | ranged | sized, larger, max_leaves=8)
FORMATS: dict[str, Callable[[str], object]] = {
    "uuid": UUID,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "date-time": datetime.fromisoformat,
}
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": int | float,
    "integer": int,
}


def valid(schema: Any, value: Any, root: Any, looped: bool = False) -> bool:
    """JSON Schema's meaning of the keywords above, as plainly as can be; `looped`: the root was asked about this value."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return not looped and valid(root["$defs"]["self"], value, root, looped=True)
    if "anyOf" in schema:
        return any(valid(option, value, root, looped) for option in schema["anyOf"])
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    of_type = any(isinstance(value, TYPES[t]) and (t not in ("integer", "number") or is_number) for t in types)
    if (types and not of_type) or not all(valid_word(word, wanted, value) for word, wanted in schema.items()):
        return False
    if isinstance(value, dict):
        known, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
        return all(valid(known.get(name, extra), member, root) for name, member in value.items())
    return not isinstance(value, list) or all(valid(schema.get("items", True), item, root) for item in value)


def valid_word(word: str, wanted: Any, value: Any) -> bool:
    match word:
        case "enum" | "const":
            return json.dumps(value) in map(json.dumps, wanted if word == "enum" else [wanted])
        case "required":
            return not isinstance(value, dict) or set(wanted) <= value.keys()
        case "pattern":
            return bool(re.search(wanted, value, re.ASCII))
        case "format":
            try:
                return FORMATS[wanted](value) is not None
            except ValueError:
                return False
        case "minimum" | "maximum":
            return bool(wanted <= value if word == "minimum" else value <= wanted)
        case "minLength" | "minItems":
            return bool(wanted <= len(value))
        case "maxLength" | "maxItems":
            return bool(len(value) <= wanted)
    return True


def sampled(vocabulary: Vocabulary, grammar: str, seed: int) -> str | None:
    """An answer by chance, with a liking for what comes to an end; None: it had not after 150 tokens."""
    dice, state, raw = random.Random(seed), Grammar(vocabulary, grammar), b""
    for _ in range(150):
        (allowed,) = np.nonzero(state.mask(np.zeros(vocabulary.n_tokens, np.float32)) == 0)
        assert len(allowed), f"a dead end after {raw!r}"
        ending = [t for t in allowed.tolist() if vocabulary.ends(t) or vocabulary.piece(t) in (b'"', b"}", b"]")]
        token = dice.choice(ending if ending and dice.random() < 0.4 else allowed.tolist())
        if vocabulary.ends(token):
            break
        state.accept(token)
        raw += vocabulary.piece(token)
    else:
        token = None
    state.close()
    try:
        return None if token is None else raw.decode()
    except UnicodeDecodeError:  # llama.cpp lets characters pass that are spelled with a byte too many
        return None


@given(schemas, st.integers(0, 2**32))
@settings(max_examples=150)
def test_whatever_is_said_by_chance_is_json_that_the_schema_allows(vocabulary, schema, seed):
    root = {"$defs": {"self": schema}, "$ref": "#/$defs/self"}
    try:
        grammar = gbnf(honoured(root))
    except SchemaError:
        return
    for i in range(4):
        answer = sampled(vocabulary, grammar, seed + i)
        assert answer is None or valid(root, json.loads(answer), root), answer
