"""What a client may ask an answer to look like: JSON schemas and GBNF grammars that the engine can follow.

A schema comes out flat: each schema in it is one of its "$defs". It allows what the client's allows, or less (members in
the schema's order, no others unless it says so), never more. What cannot be had is refused.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from api.gbnf import LARGEST_BYTES, MOST_REPEATS
from api.gbnf import check_grammar as check_grammar
from api.keywords import FORMATS, KNOWN, alone, at, between, listed, refuse, types
from api.keywords import SchemaError as SchemaError
from api.pattern import MOST_TIMES, Pattern

ANYTHING: dict[str, Any] = {}
DEEPEST = 64  # lists and objects in each other
MOST_NODES = 2000  # lists and objects
LONGEST_NAME = 256  # characters of a property's name
MOST_ALTERNATIVES = 10_000  # of all anyOf and oneOf


def honoured(schema: Any) -> dict[str, Any]:
    """The client's schema in the few words that the engine knows. Raises SchemaError."""
    _measure(schema)
    return _Flat(schema).schema()


def _measure(schema: Any) -> None:
    level, n_nodes, depth = [schema], 0, 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        n_nodes, depth = n_nodes + len(level), depth + 1
        if n_nodes > MOST_NODES or depth > DEEPEST:
            refuse("", f"is too large: at most {MOST_NODES} objects and lists, {DEEPEST} in each other, are followed")
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    try:
        n_bytes = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:  # NaN, lone surrogates, numbers of thousands of digits
        raise SchemaError(f"The schema is not valid JSON: {error}.") from error
    if n_bytes > LARGEST_BYTES:
        refuse("", f"is too large: at most {LARGEST_BYTES} bytes are followed")


class _Flat:
    """Every schema in a schema becomes one definition. A queue, not recursion: chains of references may be long."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.defs: dict[str, dict[str, Any]] = {}
        self._names: dict[int, str] = {}  # id of a client's schema -> its definition
        self._n_names = 0
        self._todo: list[tuple[str, dict[str, Any], str]] = []
        self._repeats = 0

    def schema(self) -> dict[str, Any]:
        top = _name(self._ref(self.root, ""))
        while self._todo:
            name, node, place = self._todo.pop()
            self.defs[name] = self._plain(node, place)
        self._flatten_alternatives()
        self._end_somewhere()
        return {"$defs": self.defs, **self.defs[top]}

    def _new(self) -> str:
        self._n_names += 1
        return str(self._n_names - 1)

    def _ref(self, node: Any, place: str) -> dict[str, str]:
        node, place = self._followed(node, place)
        node = ANYTHING if node is True else node
        if not isinstance(node, dict):
            refuse(place, "is false, which allows nothing" if node is False else "must be a schema")
        if id(node) not in self._names:
            self._names[id(node)] = self._new()
            self._todo.append((self._names[id(node)], node, place))
        return {"$ref": f"#/$defs/{self._names[id(node)]}"}

    def _followed(self, node: Any, place: str) -> tuple[Any, str]:
        """The schema that this one only points to."""
        seen = set()
        while isinstance(node, dict) and (key := next((key for key in ("$ref", "allOf") if key in node), None)):
            if id(node) in seen:
                refuse(place, "refers only to itself")
            seen.add(id(node))
            value = alone(node, key, place)
            place = at(place, key)
            if key == "$ref":
                node, place = self._target(value, place)
            elif isinstance(value, list) and len(value) == 1:
                node = value[0]
            else:
                refuse(place, "is supported only with one schema in it")
        return node, place

    def _target(self, pointer: Any, place: str) -> tuple[Any, str]:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            refuse(place, 'must point into the schema itself, as "#/$defs/name" does')
        node, found = self.root, ""
        for step in unquote(pointer).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and step.isdecimal() and int(step[:5]) < len(node):
                node = node[int(step[:5])]
            elif isinstance(node, dict) and step in node:
                node = node[step]
            else:
                refuse(place, f"points to {pointer[:200]}, which is not there")
            found = at(found, step)
        return node, found

    def _plain(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        for key in node:
            if key not in KNOWN and not key.startswith("x-"):
                refuse(at(place, key), "is not supported")
        for key in ("anyOf", "oneOf"):
            if key in node:
                options = alone(node, key, place)
                if not isinstance(options, list) or not options:
                    refuse(at(place, key), "must be a list of schemas")
                return {"anyOf": [self._ref(option, at(place, f"{key}.{i}")) for i, option in enumerate(options)]}
        wanted = types(node, place)
        if "enum" in node or "const" in node:
            return listed(node, wanted, place)
        found = [self._typed(type, node, place) for type in wanted]
        if len(found) < 2:
            return found[0] if found else {}
        names = [self._new() for _ in found]
        self.defs |= zip(names, found, strict=True)
        return {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}

    def _typed(self, type: str, node: dict[str, Any], place: str) -> dict[str, Any]:
        match type:
            case "object":
                return self._object(node, place)
            case "array":
                return self._array(node, place)
            case "string":
                return self._string(node, place)
            case "integer" | "number":
                return {"type": type, **between(node, place, type)}
        return {"type": type}

    def _string(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        given = [key for key in ("pattern", "format", "minLength", "maxLength") if key in node]
        if given[1:] and given[0] in ("pattern", "format"):
            refuse(at(place, given[1]), f"cannot be combined with {given[0]}")
        if "pattern" in given:
            pattern = Pattern(node["pattern"], at(place, "pattern"))
            self._spend(pattern.repeats, at(place, "pattern"))
            return {"type": "string", "pattern": f"^{pattern.text}$"}
        if "format" in given:
            if node["format"] not in FORMATS:
                refuse(at(place, "format"), f"must be one of {', '.join(FORMATS)}")
            return {"type": "string", "format": node["format"]}
        return {"type": "string", **self._counts(node, "minLength", "maxLength", place)}

    def _counts(self, node: dict[str, Any], least: str, most: str, place: str) -> dict[str, int]:
        found = {key: node[key] for key in (least, most) if key in node}
        for key, value in found.items():
            if type(value) is not int or not 0 <= value <= MOST_TIMES:
                refuse(at(place, key), f"must be an integer from 0 to {MOST_TIMES}")
        if found.get(least, 0) > found.get(most, MOST_TIMES):
            refuse(at(place, least), f"must not be larger than {most}")
        self._spend(found.get(most, found.get(least, 0)), place)
        return found

    def _spend(self, repeats: int, place: str) -> None:
        self._repeats += repeats
        if self._repeats > MOST_REPEATS:
            refuse(place, f"is too much: all lengths and repetitions together may come to {MOST_REPEATS}")

    def _array(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        if node.get("uniqueItems", False) is not False:
            refuse(at(place, "uniqueItems"), "is not supported")
        counts = self._counts(node, "minItems", "maxItems", place)
        key = "prefixItems" if "prefixItems" in node else "items"
        items = node.get(key, True)
        if not isinstance(items, list) and key == "items":
            return {"type": "array", "items": self._ref(items, at(place, key)), **counts}
        if key == "prefixItems" and not isinstance(node.get("items", True), bool):
            refuse(at(place, "items"), "cannot be combined with prefixItems")
        if not isinstance(items, list) or not items:
            refuse(at(place, key), "must be a list of schemas")
        if not counts.get("minItems", 0) <= len(items) <= counts.get("maxItems", MOST_TIMES):
            refuse(at(place, key), "cannot be followed with this minItems or maxItems: each item is there once")
        return {"type": "array", "prefixItems": [self._ref(item, at(place, f"{key}.{i}")) for i, item in enumerate(items)]}

    def _object(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        properties, required = node.get("properties", {}), node.get("required", [])
        if not isinstance(properties, dict):
            refuse(at(place, "properties"), "must be an object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            refuse(at(place, "required"), "must be a list of names")
        extra = node.get("additionalProperties", "properties" not in node)
        at_extra = at(place, "additionalProperties")
        members = {name: self._ref(value, at(place, f"properties.{name}")) for name, value in properties.items()}
        for name in required:
            if name not in members:
                if extra is False and "additionalProperties" in node:
                    refuse(at(place, "required"), f"names {name[:50]}, which is not among the properties")
                members[name] = self._ref(extra or True, at_extra)
        if any(len(name) > LONGEST_NAME for name in members):
            refuse(at(place, "properties"), f"has a name of more than {LONGEST_NAME} characters")
        others = False if extra is False else self._ref(extra, at_extra)
        required = list(dict.fromkeys(required))
        return {"type": "object", "properties": members, "required": required, "additionalProperties": others}

    def _flatten_alternatives(self) -> None:
        """Each anyOf lists, once, what is no anyOf itself: llama.cpp would walk every way through them."""
        texts = {name: json.dumps(node, sort_keys=True) for name, node in self.defs.items()}
        flat: dict[str, list[dict[str, str]]] = {}
        n_found = 0
        for name in [name for name, node in self.defs.items() if "anyOf" in node]:
            todo, seen = [name], set()
            found: dict[str, dict[str, str]] = {}
            while todo:
                option = todo.pop()
                if option not in seen and "anyOf" in self.defs[option]:
                    todo += [_name(ref) for ref in reversed(self.defs[option]["anyOf"])]
                elif option not in seen:
                    found.setdefault(texts[option], {"$ref": f"#/$defs/{option}"})
                seen.add(option)
            flat[name] = list(found.values())
            n_found += len(found)
            if n_found > MOST_ALTERNATIVES:
                refuse("", f"has too many alternatives: at most {MOST_ALTERNATIVES} are followed")
        for name, options in flat.items():
            self.defs[name] = {"anyOf": options}

    def _end_somewhere(self) -> None:
        """Refuses what has no finite value, as a list node that must have a next node: its answer would never end."""
        finite: set[str] = set()
        while found := {name for name, node in self.defs.items() if name not in finite and _ends(node, finite)}:
            finite |= found
        if len(finite) < len(self.defs):
            refuse("", "holds itself without an end")


def _name(ref: dict[str, str]) -> str:
    return ref["$ref"].removeprefix("#/$defs/")


def _ends(node: dict[str, Any], finite: set[str]) -> bool:
    """Whether this definition has a finite value, given those that have."""
    if "anyOf" in node:
        return any(_name(option) in finite for option in node["anyOf"])
    needed = list(node.get("prefixItems", []))
    needed += [node["properties"][name] for name in node.get("required", [])]
    needed += [node["items"]] if node.get("minItems", 0) else []
    return all(_name(part) in finite for part in needed)
