"""The head of a GGUF file is read without trust: whatever the bytes, the answer is a Header or one sentence, and soon."""

from __future__ import annotations

import os
import random
import struct
import time

import gguf
import numpy as np
import pytest

from engine.fields import HEAD_BYTES, TYPES
from engine.header import Header, HeaderError, read_header
from models.store import DEMO
from tests.vocabularies import write

U32, STRING, ARRAY, U64 = 4, 8, 9, 10
F32, Q8_0 = 0, 8


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, kind, value):
    """One key and its value, whose bytes are given."""
    return text(key) + struct.pack("<I", kind) + value


def tensor(name="a", shape=(32,), kind=F32, offset=0, n_dims=None):
    dims = struct.pack(f"<I{len(shape)}Q", len(shape) if n_dims is None else n_dims, *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def file_of(values=(), tensors=(), data=128, version=3, n_values=None, n_tensors=None, magic=b"GGUF"):
    counts = (len(tensors) if n_tensors is None else n_tensors, len(values) if n_values is None else n_values)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(values) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def refusal(path, content=None):
    """The sentence with which the file is refused; it comes at once."""
    if content is not None:
        path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    assert time.monotonic() - start < 1
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400 + len(str(path))
    return sentence


ARCHITECTURE = entry("general.architecture", STRING, text("llama"))
SMALL = file_of([ARCHITECTURE, entry("llama.block_count", U32, struct.pack("<I", 2))], [tensor()])

DAMAGED = {
    "empty": (b"", "is empty"),
    "a web page": (b"\n <!DOCTYPE html><html>", "web page"),
    "another file": (b"PK\x03\x04" * 9, "not a GGUF"),
    "the first letter": (b"G", "not a GGUF"),
    "only the magic": (b"GGUF", "ends in the middle"),
    "no counts": (b"GGUF\x03\0\0\0", "ends in the middle"),
    "version 1": (file_of(version=1), "of version 1"),
    "version 2^31": (file_of(version=2**31 + 1), "of version 2147483649"),
    "the other byte order": (file_of(version=3 << 24), "other byte order"),
    "2^60 values": (file_of(n_values=2**60), "1152921504606846976 values"),
    "2^60 tensors": (file_of(n_tensors=2**60), "1152921504606846976 tensors"),
    "more values than there are": (file_of(n_values=1000), "a key is empty"),
    "a key of 2^62 bytes": (file_of([struct.pack("<QI", 2**62, STRING)]), "4611686018427387904 bytes"),
    "an empty key": (file_of([entry("", U32, bytes(4))]), "a key is empty"),
    "a text longer than the file": (file_of([entry("k", STRING, struct.pack("<Q", 2**20))]), "ends in the middle"),
    "a text of 2^63 bytes": (file_of([entry("k", STRING, struct.pack("<Q", 2**63))]), "9223372036854775808 bytes"),
    "an unknown type": (file_of([entry("k", 13, bytes(8))]), "unknown type 13"),
    "a list of 2^61 numbers": (file_of([entry("k", ARRAY, struct.pack("<IQ", U64, 2**61))]), "ends in the middle"),
    "a list of 2^60 texts": (file_of([entry("k", ARRAY, struct.pack("<IQ", STRING, 2**60))]), "does not fit"),
    "a list of lists": (file_of([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 2**40))]), "list of the unknown type 9"),
    "a text in a list too long": (
        file_of([entry("k", ARRAY, struct.pack("<IQQ", STRING, 2, 2**63))]),
        "ends in the middle",
    ),
    "a key twice": (file_of([ARCHITECTURE, ARCHITECTURE]), "there twice"),
    "a tensor twice": (file_of((), [tensor(), tensor(offset=128)], 256), "there twice"),
    "a tensor of an unknown type": (file_of((), [tensor(kind=4)]), "unknown type 4"),
    "five dimensions": (file_of((), [tensor(shape=(1, 1, 1, 1, 32))]), "has 5 dimensions"),
    "2^31 dimensions": (file_of((), [tensor(n_dims=2**31)]), "has 2147483648 dimensions"),
    "no dimensions": (file_of((), [tensor(shape=())]), "has 0 dimensions"),
    "a dimension of zero": (file_of((), [tensor(shape=(32, 0))]), "impossible shape"),
    "a shape that overflows": (file_of((), [tensor(shape=(2**33, 2**33))]), "impossible shape"),
    "a negative dimension": (file_of((), [tensor(shape=(2**64 - 32,))]), "impossible shape"),
    "a tensor's name of 64 bytes": (file_of((), [tensor("n" * 64)]), "64 bytes stands where 63"),
    "rows that are no blocks": (file_of((), [tensor(shape=(33,), kind=Q8_0)]), "rows of 33"),
    "weights that are cut": (file_of((), [tensor()], 127), "bytes; fetch or make it again"),
    "weights far beyond the end": (file_of((), [tensor(shape=(2**60,))]), "bytes; fetch or make it again"),
    "an offset beyond the end": (file_of((), [tensor(offset=2**63)]), "begins at 9223372036854775808"),
    "an offset between": (file_of((), [tensor(offset=4)]), "begins at 4 where 0"),
    "tensors that overlap": (file_of((), [tensor(), tensor("b", offset=64)], 256), "begins at 64 where 128"),
    "an alignment of zero": (file_of([entry("general.alignment", U32, bytes(4))]), "not a power of two"),
    "an alignment that is a text": (file_of([entry("general.alignment", STRING, text("32"))]), "not a power of two"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_with_a_reason(name, tmp_path):
    content, reason = DAMAGED[name]
    assert reason in refusal(tmp_path / "x.gguf", content)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    assert "is a directory" in refusal(tmp_path)
    assert "There is no file" in refusal(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert "not a regular file" in refusal(tmp_path / "link")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "cannot be read" in refusal(tmp_path / "circle")
    assert "cannot be read" in refusal(tmp_path / "zero\0byte")


def test_a_head_without_end_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "x.gguf").open("wb") as file:
        file.write(file_of([entry("k", ARRAY, struct.pack("<IQ", 0, 2**36))], data=0))
        file.truncate(2**37)  # a hole: it takes no room
    assert f"larger than {HEAD_BYTES >> 20} MiB" in refusal(tmp_path / "x.gguf")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    assert read_header_of(tmp_path, SMALL).architecture == "llama"
    for n in range(len(SMALL)):
        refusal(tmp_path / "x.gguf", SMALL[:n])


def read_header_of(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    return read_header(tmp_path / "x.gguf")


def test_any_single_wrong_byte_gives_a_header_or_a_sentence(tmp_path):
    path = tmp_path / "x.gguf"
    rng = random.Random(3)
    start = time.monotonic()
    for at in range(len(SMALL) - 128):
        for value in {0, 0x80, 0xFF, SMALL[at] ^ 1, rng.randrange(256)}:
            path.write_bytes(SMALL[:at] + bytes([value]) + SMALL[at + 1 :])
            try:
                look_at(read_header(path))
            except HeaderError as error:
                assert str(error).endswith(".")
    assert time.monotonic() - start < 10


def look_at(header):
    """Asks for everything; what is strange is None."""
    for name in dir(Header):
        if not name.startswith("__"):
            getattr(header, name)


def test_many_wrong_bytes_in_a_real_head_give_a_header_or_a_sentence(tmp_path):
    path = write("chatml", tmp_path / "real.gguf")
    content, rng = path.read_bytes(), random.Random(4)
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(12000)] = rng.choice([0, 1, 0x80, 0xFF, rng.randrange(256)])
        path.write_bytes(changed)
        try:
            look_at(read_header(path))
        except HeaderError as error:
            assert str(error).endswith(".")


def test_strange_values_are_none_and_no_error(tmp_path):
    keys = ("block_count", "attention.head_count", "embedding_length", "context_length", "vocab_size")
    values = [ARCHITECTURE] + [entry(f"llama.{key}", STRING, text("many")) for key in keys]
    header = read_header_of(tmp_path, file_of(values, [tensor()]))
    assert (header.n_layers, header.n_kv_heads, header.key_length, header.n_ctx, header.n_vocab) == (None,) * 5
    assert header.kv_elements is None and not header.has_template and header.n_parameters == 32
    header = read_header_of(tmp_path, file_of([entry("general.architecture", U32, bytes(4))]))
    assert header.architecture is None and header.mix == {}


def test_what_the_demo_says_of_itself():
    header = read_header(DEMO)
    assert (header.architecture, header.tokenizer, header.tokenizer_pre) == ("llama", "gpt2", "smollm")
    assert header.n_bytes == DEMO.stat().st_size and header.n_vocab == 1536 and header.has_template
    assert header.kv_elements == 6 * 4 * (64 + 64)
    assert next(iter(header.mix)) == "Q8_0"
    reader = gguf.GGUFReader(DEMO)
    assert header.n_parameters == sum(tensor.n_elements for tensor in reader.tensors)
    found = [(t.name, list(t.shape), t.type, t.offset, t.n_bytes) for t in header.tensors]
    assert found == [(t.name, t.shape.tolist(), t.tensor_type.name, t.data_offset, int(t.n_bytes)) for t in reader.tensors]


def test_layers_with_different_heads_are_counted_one_by_one(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(3)
    writer.add_head_count(8)
    writer.add_head_count_kv([4, 2, 0])
    writer.add_key_length(64)
    writer.add_value_length(32)
    writer.add_tensor("a", np.zeros(4, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    header = read_header(tmp_path / "x.gguf")
    assert header.n_kv_heads == 4 and header.kv_elements == 6 * (64 + 32)


def test_a_large_vocabulary_is_read_in_a_moment(tmp_path):
    tokens = [f"Ġtoken{i}" for i in range(150_000)]
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.5] * len(tokens))
    writer.add_token_merges([f"Ġ tok{i}" for i in range(150_000)])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    start = time.monotonic()
    header = read_header(tmp_path / "x.gguf")
    assert time.monotonic() - start < 0.8
    found = header.values["tokenizer.ggml.tokens"]
    assert header.n_vocab == len(found) == 150_000 and found[-1] == tokens[-1] and found[5:7] == tokens[5:7]
    assert list(found) == tokens


def test_the_table_of_types_is_ggufs():
    for kind, sizes in gguf.GGML_QUANT_SIZES.items():
        assert TYPES[kind] == (kind.name, *sizes)
