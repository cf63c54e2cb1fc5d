"""The one way in which a conversion fails."""

from __future__ import annotations


class ConvertError(Exception):
    """The checkpoint cannot be converted or the file not be written; the message is a sentence for the user."""
