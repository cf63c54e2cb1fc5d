"""Makes a GGUF of a Hugging Face checkpoint, or says what a GGUF is.

python -m convert owner/name                       fetches it from the hub; models/name-Q4_K_M.gguf
python -m convert FOLDER --quant Q8_0 --out FILE   a checkpoint that is on the disk
python -m convert inspect FILE
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from convert.conversion import convert
from convert.errors import ConvertError
from convert.hub import fetch
from convert.quants import TYPES, type_named
from convert.table import printable, table
from engine.header import HeaderError
from models.store import FOLDER

DEFAULT_QUANT = "Q4_K_M"
INTERRUPTED = 130  # exit code, as shells have it


def main(arguments: list[str]) -> int:
    """The exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))  # so that the files begun are deleted
    try:
        if arguments[:1] == ["inspect"]:
            return _inspect(arguments[1:])
        return _convert(_parser().parse_args(arguments))
    except (ConvertError, HeaderError) as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        return 1
    except OSError as error:  # of the folder itself, say
        sys.stderr.write(f"It failed: {printable(str(error))}.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; nothing was left behind.\n")
        return INTERRUPTED


def _inspect(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m convert inspect FILE\n")
        return 2
    sys.stdout.write(table(Path(arguments[0]).expanduser()) + "\n")
    return 0


def _convert(options: argparse.Namespace) -> int:
    quant = type_named(options.quant)
    name = Path(options.source).expanduser().resolve().name
    out = Path(options.out).expanduser() if options.out else FOLDER / f"{name}-{quant}.gguf"
    if out.exists() and not options.force:  # before anything is fetched
        raise ConvertError(f"{out} is there already; --force replaces it.")
    header, notes = convert(fetch(options.source), out, quant, name, options.force)
    for note in notes:
        sys.stderr.write(f"Note: {printable(note)}\n")
    sys.stdout.write(f"{out}: {header.n_parameters:,} parameters, {header.n_bytes / 1e6:,.1f} MB\n")
    if out.resolve().parent == FOLDER:
        sys.stdout.write(f"python server.py --model {out.stem}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m convert", description="Makes a GGUF of a Hugging Face checkpoint.")
    parser.add_argument("source", help="a folder, or a repository of the hub: owner/name")
    parser.add_argument("--quant", default=DEFAULT_QUANT, help=f"{', '.join(TYPES)}; default: {DEFAULT_QUANT}")
    parser.add_argument("--out", help="the file to write; default: models/NAME-QUANT.gguf")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
