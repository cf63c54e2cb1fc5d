"""What goes wrong when a model is fetched; each message is a sentence for the user.

StoreError                     (models.store) nothing can be loaded or fetched
└─ DownloadError
   ├─ WrongNameError           what was asked for is neither a name of the catalog nor owner/name[:quant]
   ├─ AbsentError              the hub has no such repository, file or quantization
   ├─ UnfitError               the hub has it, but it cannot be taken: split, without a hash, under a hostile name
   ├─ DeniedError              it wants a token, or another one
   ├─ OfflineError             HF_HUB_OFFLINE forbids to ask
   ├─ UnreachableError         no answer, a broken or stalled one: the only kind that is worth another try
   ├─ PageError                a web page came instead: this network wants something first
   ├─ DamagedError             what came is not what the hub says it has; a part is thrown away
   │  └─ PastEndError          the part is longer than the hub's file: the one thing to do is to start over
   ├─ AddressError             the hub sends us on to where nobody should be sent
   ├─ DiskError                no room, or no permission to write
   ├─ OccupiedError            another file stands under the model's name
   ├─ BusyError                as many downloads run as may
   └─ StoppedError             cancelled; the part stays
"""

from __future__ import annotations

import errno

from models.store import StoreError

LONGEST_NAME = 100  # characters of a stranger's text that an error repeats


class DownloadError(StoreError):
    """The model was not fetched."""


class WrongNameError(DownloadError):
    """Not a name at all."""


class AbsentError(DownloadError):
    """A name of nothing."""


class UnfitError(DownloadError):
    """There, but not to be taken."""


class DeniedError(DownloadError):
    """Not for this token."""


class OfflineError(DownloadError):
    """Not allowed to ask."""


class UnreachableError(DownloadError):
    """May succeed if tried again."""


class PageError(DownloadError):
    """For people, not for us."""


class DamagedError(DownloadError):
    """Not what was promised."""


class PastEndError(DamagedError):
    """Nothing is left where the part ends."""


class AddressError(DownloadError):
    """Sent on to a forbidden place."""


class DiskError(DownloadError):
    """The disk will not have it."""


class OccupiedError(DownloadError):
    """The place is taken."""


class BusyError(DownloadError):
    """Later, perhaps."""


class StoppedError(DownloadError):
    """As the user wished."""


DISK_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "it cannot be written to",
}


def from_disk(error: OSError, place: object) -> DiskError:
    """What the operating system said about writing to a file."""
    reason = DISK_REASONS.get(error.errno or 0) or error.strerror or type(error).__name__
    return DiskError(f"The model cannot be written to {place}: {reason}. What came stays; the same command goes on.")


def shown(text: str) -> str:
    """A stranger's text, fit for a terminal: short, and without what could move its cursor."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST_NAME])
    return clean + ("..." if len(text) > LONGEST_NAME else "")
