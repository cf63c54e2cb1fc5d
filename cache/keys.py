"""From all that determines an answer to the key it is kept under."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def key(facts: Any) -> str:
    """64 hexadecimal digits for plain data and dataclasses: equal for equal data, whatever the order of dictionaries."""
    return hashlib.sha256(_encode(facts).encode()).hexdigest()


# One encoder, not a new one for each key.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=vars).encode
