"""The words of JSON schema: which are known, what they say about types, values and ranges, and how one is refused."""

from __future__ import annotations

import math
from typing import Any, NoReturn

MOST_VALUES = 1000  # of one enum
LARGEST_BOUND = 10**15
ANNOTATIONS = set(
    "$anchor $comment $defs $id $schema $vocabulary contentMediaType default definitions deprecated description "
    "discriminator example examples externalDocs id readOnly title writeOnly xml".split()
)
BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": BOUNDS,
    "integer": BOUNDS,
    "boolean": set(),
    "null": set(),
}
KNOWN = ANNOTATIONS.union(*KEYWORDS.values(), {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
FORMATS = ("uuid", "date", "time", "date-time")


class SchemaError(Exception):
    """A schema or grammar that cannot be followed; the message is a sentence that names the place."""


def refuse(place: str, says: str) -> NoReturn:
    """Raises SchemaError."""
    raise SchemaError(f"{place[-200:] or 'The schema'} {says}.")


def at(place: str, key: object) -> str:
    """The place of a keyword or name in a place."""
    return f"{place}.{str(key)[:50]}".removeprefix(".")


def alone(node: dict[str, Any], key: str, place: str) -> Any:
    """The value of a keyword beside which nothing else may constrain."""
    for other in node:
        if other != key and other not in ANNOTATIONS and not other.startswith("x-"):
            refuse(at(place, other), f"cannot be combined with {key}" if other in KNOWN else "is not supported")
    return node[key]


def types(node: dict[str, Any], place: str) -> list[str]:
    """The types a schema names, or means by its keywords; none: any."""
    given = node.get("type")
    if given is None:
        return [type for type in ("object", "array", "string", "number") if KEYWORDS[type] & node.keys()]
    types = list(given) if isinstance(given, list) else [given]
    if not types or not all(isinstance(type, str) and type in KEYWORDS for type in types):
        refuse(at(place, "type"), f"must be of {', '.join(KEYWORDS)}")
    return [type for type in dict.fromkeys(types) if type != "integer" or "number" not in types]


def listed(node: dict[str, Any], types: list[str], place: str) -> dict[str, Any]:
    """enum or const: those of its values that are of the type."""
    key = "const" if "const" in node else "enum"
    for other in node.keys() & (set().union(*KEYWORDS.values()) | {"enum", "const"}) - {key}:
        refuse(at(place, other), f"cannot be combined with {key}")
    values = [node["const"]] if key == "const" else node["enum"]
    if not isinstance(values, list) or len(values) > MOST_VALUES:
        refuse(at(place, key), f"must be a list of at most {MOST_VALUES} values")
    values = [value for value in values if not types or any(_is_of(type, value) for type in types)]
    if not values:
        refuse(at(place, key), "has no value of the schema's type")
    return {"enum": values}


def _is_of(type: str, value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return type == ("null" if value is None else "boolean")
    if isinstance(value, float) and type == "integer":
        return value.is_integer()
    return isinstance(
        value, {"object": dict, "array": list, "string": str, "integer": int, "number": int | float}.get(type, ())
    )


def between(node: dict[str, Any], place: str, type: str) -> dict[str, int]:
    """minimum and maximum of the integers, or between whole numbers, that a schema allows."""
    low, high = -math.inf, math.inf
    for key in sorted(BOUNDS & node.keys()):
        value = node[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST_BOUND:
            refuse(at(place, key), f"must be a number from -{LARGEST_BOUND} to {LARGEST_BOUND}")
        if type == "number" and (key.startswith("exclusive") or value != int(value)):
            refuse(at(place, key), 'is supported only for the type "integer", or as a whole minimum or maximum')
        match key:
            case "minimum" | "exclusiveMinimum":
                low = max(low, math.ceil(value) if key == "minimum" else math.floor(value) + 1)
            case _:
                high = min(high, math.floor(value) if key == "maximum" else math.ceil(value) - 1)
    if low > high:
        refuse(at(place, "minimum"), "must not be larger than maximum")
    return {key: int(value) for key, value in (("minimum", low), ("maximum", high)) if math.isfinite(value)}
