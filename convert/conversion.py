"""From a checkpoint's folder to a GGUF: read, checked, written beside, quantized, checked again, renamed last."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gguf import GGMLQuantizationType as Kind
from tqdm import tqdm  # type: ignore[import-untyped]

from convert.config import read_config
from convert.errors import ConvertError
from convert.folder import Folder
from convert.quants import PLAIN, TYPES
from convert.special import read_special, spelled
from convert.tensors import Planned, plan
from convert.vocabulary import read_vocabulary
from convert.weights import open_weights
from convert.writer import Contents, choose_kinds, write
from engine.header import Header, HeaderError, read_header

ROOT = Path(__file__).resolve().parent.parent
LOCK = ".lock"  # behind the output's name: held by the one process that makes it
PART, BEFORE = ".part", ".f16.part"  # behind the output's name: what is written, and what it is quantized from
SPARE_BYTES = 2**26  # 64 MiB: the head, and room to breathe


def convert(source: Path, out: Path, quant: str, name: str, is_forced: bool = False) -> tuple[Header, list[str]]:
    """Writes `out`; returns its head and what the user should know. `quant` is a name of convert.quants.

    Raises ConvertError; then, and when it is interrupted, nothing is left behind.
    """
    _check_out(out, is_forced)
    with Folder(source) as folder:
        config = read_config(folder)
        vocabulary, tokenizer = read_vocabulary(folder, config, spelled(folder, "bos"))
        special = read_special(folder, config, vocabulary, tokenizer)
        planned = plan(config, open_weights(folder))
        name = name.encode(errors="replace").decode()  # a folder's name may be no text
        with _alone(out):
            header = _make(out, quant, Contents(name, config, vocabulary, special, planned))
    return header, vocabulary.notes


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two that make the same file would mix their parts. A lock that was left behind by a dead process holds nobody."""
    path = out.with_name(out.name + LOCK)
    with ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConvertError(f"{out} is being made by another process just now.") from error
        except OSError as error:
            raise ConvertError(f"{path} cannot be written: {error.strerror or error}.") from error
        stack.callback(path.unlink, missing_ok=True)
        yield


def _make(out: Path, quant: str, contents: Contents) -> Header:
    kind = Kind[quant] if quant in PLAIN else Kind.F16
    _check_space(out, contents.planned, kind, quant)
    part, before = out.with_name(out.name + PART), out.with_name(out.name + BEFORE)
    first = part if quant in PLAIN else before
    try:
        n_bytes = sum(tensor.weight.n_elements for tensor in contents.planned) * _bytes_each(kind)
        with _bar(n_bytes, "checking") as bar:
            kinds = choose_kinds(contents.planned, kind, bar)
        with _bar(n_bytes, "converting") as bar:
            write(first, contents, kinds, kind, bar)
        if first is before:
            quantize(before, part, quant)
        header = read_header(part)
        part.replace(out)
    except HeaderError as error:
        raise ConvertError(f"The file that was made is not as it should be, so it was deleted: {error}") from error
    except OSError as error:
        raise ConvertError(f"{out} cannot be written: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
        before.unlink(missing_ok=True)
    return header


def quantize(source: Path, target: Path, quant: str) -> None:
    """Runs convert.quantize. Raises ConvertError."""
    command = [sys.executable, "-m", "convert.quantize", str(source.resolve()), str(target.resolve()), str(TYPES[quant][0])]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
        tqdm(desc=f"quantizing to {quant}", unit=" tensors", disable=None) as bar,
    ):
        try:
            for line in child.stdout or ():
                match line.split():
                    case [done, total] if done.isdigit() and total.isdigit():
                        bar.total = int(total)
                        bar.update(int(done) - bar.n)
            said = (child.stderr.read() if child.stderr else "").split("\n")[0]
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise ConvertError(f"llama.cpp could not quantize to {quant} ({said[:200] or f'exit code {child.returncode}'}).")


def _check_out(out: Path, is_forced: bool) -> None:
    if not out.parent.is_dir():
        raise ConvertError(f"There is no folder {out.parent} to write to.")
    if out.is_dir() or (out.exists() and not out.is_file()):
        raise ConvertError(f"{out} is not a regular file.")
    if out.exists() and not is_forced:
        raise ConvertError(f"{out} is there already; --force replaces it.")


def _check_space(out: Path, planned: list[Planned], kind: Kind, quant: str) -> None:
    n = sum(tensor.weight.n_elements for tensor in planned)
    needed = n * _bytes_each(kind) + SPARE_BYTES
    if quant not in PLAIN:
        needed += int(n * TYPES[quant][1] / 8)
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise ConvertError(
            f"{needed / 1e9:.1f} GB are needed in {out.parent} until it is done, but {free / 1e9:.1f} GB are free."
        )


def _bytes_each(kind: Kind) -> int:
    return 4 if kind == Kind.F32 else 2


def _bar(n_bytes: int, what: str) -> tqdm[None]:
    return tqdm(total=n_bytes, desc=what, unit="B", unit_scale=True, disable=None)
