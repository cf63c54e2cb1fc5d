"""What a GGUF file is, as a table: `python -m convert inspect FILE`."""

from __future__ import annotations

from pathlib import Path

from engine import memory
from engine.header import Header, read_header
from engine.request import Config

CONTEXTS = (2048, 4096, 8192, 16384, 32768, 131072)  # tokens
F16_BYTES = 2
SPECIAL = {"BOS": "bos", "EOS": "eos", "EOT": "eot", "padding": "padding", "unknown": "unknown"}
N_SHOWN = 1000  # characters of a line
UNITS = ("B", "kB", "MB", "GB", "TB")


def table(path: Path) -> str:
    """Raises HeaderError."""
    header = read_header(path)
    rows = [
        ("architecture", header.architecture),
        ("name", header.name),
        ("parameters", f"{header.n_parameters:,}"),
        ("file", f"{_size(header.n_bytes)}, GGUF version {header.version}, {len(header.tensors)} tensors"),
        ("weights", _mix(header)),
        ("layers", header.n_layers),
        ("embedding", header.n_embd),
        ("heads", _heads(header)),
        ("context", f"{header.n_ctx:,} tokens" if header.n_ctx else None),
        ("vocabulary", f"{header.n_vocab:,} tokens" if header.n_vocab else None),
        ("tokenizer", _tokenizer(header)),
        *((f"{name} token", _token(header, key)) for name, key in SPECIAL.items()),
        ("chat template", "yes" if header.has_template else "no"),
        *_memory(path, header),
    ]
    return "\n".join(f"{name:<20}{printable(str(value))}" for name, value in rows if value is not None)


def _mix(header: Header) -> str:
    whole = sum(header.mix.values()) or 1
    return ", ".join(f"{kind} {_size(n_bytes)} ({100 * n_bytes / whole:.0f} %)" for kind, n_bytes in header.mix.items())


def _heads(header: Header) -> str | None:
    if header.n_heads is None:
        return None
    return f"{header.n_heads}, of keys and values {header.n_kv_heads}, each of {header.key_length} elements"


def _tokenizer(header: Header) -> str | None:
    return f"{header.tokenizer}, splits as {header.tokenizer_pre or 'default'}" if header.tokenizer else None


def _token(header: Header, key: str) -> str | None:
    number, tokens = header.count(f"tokenizer.ggml.{key}_token_id"), header.values.get("tokenizer.ggml.tokens")
    if number is None:
        return None
    return f"{number} {tokens[number]}" if tokens is not None and number < len(tokens) else f"{number} (not there)"


def _memory(path: Path, header: Header) -> list[tuple[str, str]]:
    elements, n_ctx = header.kv_elements, header.n_ctx
    if elements is None or n_ctx is None:
        return []
    rows = []
    for n in [n for n in CONTEXTS if n < n_ctx] + [n_ctx]:
        kv = elements * n * F16_BYTES
        need = memory.need(Config(str(path), n, 1, 1))
        total = f", {_size(need.total_bytes)} with weights and buffers, for one request at a time" if need else ""
        rows.append((f"memory at {n:,}", f"{_size(kv)} of context in F16{total}"))
    return rows


def _size(n_bytes: float) -> str:
    for unit in UNITS:
        if n_bytes < 1000 or unit == UNITS[-1]:
            break
        n_bytes /= 1000
    return f"{n_bytes:.3g} {unit}"


def printable(text: str) -> str:
    """Without what would move the terminal's cursor: names come from strangers."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:N_SHOWN])
