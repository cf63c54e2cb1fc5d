"""What a client wants of the answer cache: Cache-Control as in RFC 9111, section 5.2.1, and `cache` in the body."""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.datastructures import RequestCacheControl


@dataclass(frozen=True)
class Control:
    """All of it. Directives that mean nothing here are no errors: a client may send them to whatever is in between."""

    no_store: bool = False  # keep nothing of this, and look nothing up
    no_cache: bool = False  # answer afresh, and keep that
    only_if_cached: bool = False
    max_age_s: int | None = None

    @classmethod
    def read(cls, header: RequestCacheControl, cache: bool | None) -> Control:
        """`cache`: the field of the body; False is no-store."""
        max_age = header.max_age
        return cls(
            no_store=bool(header.no_store) or cache is False,
            no_cache=bool(header.no_cache) or max_age == 0,
            only_if_cached=bool(header.only_if_cached),
            max_age_s=max_age,
        )
