"""Checkpoints by strangers: what is damaged or was made to do harm is refused with one sentence, and nothing is left."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from convert.__main__ import main
from convert.conversion import convert
from convert.errors import ConvertError
from engine.header import read_header
from tests.checkpoints.copies import FOLDER, copied

SECRET = "a-secret-of-the-house"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
BIG = 10**9


def edit_json(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def config(**changes):
    return lambda folder: edit_json(folder / "config.json", lambda value: value.update(changes))


def tokenizer(change):
    return lambda folder: edit_json(folder / "tokenizer.json", change)


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def header(change):
    """Changes what the single file with weights says of them."""

    def act(folder):
        raw = (folder / WEIGHTS).read_bytes()
        n = int.from_bytes(raw[:8], "little")
        table = json.loads(raw[8 : 8 + n])
        head = json.dumps(change(table) or table).encode()
        (folder / WEIGHTS).write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + n :])

    return act


def entry(**changes):
    return header(lambda table: table["model.norm.weight"].update(changes))


def moved(by):
    def change(table):
        start, end = table["model.norm.weight"]["data_offsets"]
        table["model.norm.weight"]["data_offsets"] = [start + by, end + by]

    return header(change)


def only_pickles(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pickled'\ntR.")


def index(**placed):
    def act(folder):
        (folder / INDEX).write_text(json.dumps({"weight_map": placed}))

    return act


def link(name, target):
    def act(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return act


def pipe(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def cut(name, n):
    return lambda folder: os.truncate(folder / name, n)


def infinite(folder):
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[:-4] + np.float32("inf").tobytes())


def extra(table):
    table["adapter"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


HOSTILE = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "There is no config.json"),
    "a pipe as config": (pipe, "not a regular file"),
    "a config that is a list": (write("config.json", "[]"), "not a JSON object"),
    "a config that is nested deeply": (write("config.json", "[" * 200_000), "not JSON"),
    "a config with a key twice": (write("config.json", '{"a": 1, "a": 2}'), "a key is there twice"),
    "a config of 2 MB": (write("config.json", " " * 2**21), "more than the"),
    "another architecture": (config(architectures=["MambaForCausalLM"]), "LlamaForCausalLM and Qwen2ForCausalLM"),
    "no architecture": (config(architectures=[]), "LlamaForCausalLM and Qwen2ForCausalLM"),
    "10^9 layers": (config(num_hidden_layers=BIG), "num_hidden_layers is 1000000000"),
    "no heads": (config(num_attention_heads=0), "num_attention_heads is 0"),
    "10^9 tokens": (config(vocab_size=BIG), "vocab_size is 1000000000"),
    "heads that cannot be shared": (config(num_key_value_heads=3), "cannot share"),
    "heads without elements": (config(num_attention_heads=128, head_dim=None), "head_dim is 0"),
    "a text as width": (config(hidden_size="64"), "hidden_size is 64"),
    "a truth as width": (config(hidden_size=True), "hidden_size is True"),
    "another width than the weights": (config(intermediate_size=128), "has the shape [96, 64]"),
    "fewer layers than the weights": (config(num_hidden_layers=1), "which this architecture does not have"),
    "more layers than the weights": (config(num_hidden_layers=3), "has no tensor model.layers.2"),
    "a rope nobody knows": (config(rope_parameters={"rope_type": "spiral"}), "'spiral' is not supported"),
    "a rope of theta zero": (config(rope_parameters={"rope_theta": 0}), "rope_theta is 0"),
    "a yarn that llama.cpp does not know": (
        config(rope_parameters={"rope_type": "yarn", "factor": 4, "beta_fast": 16}),
        "other betas than 32 and 1",
    ),
    "an endless rope": (config(rope_parameters={"rope_type": "linear", "factor": float("inf")}), "factor is inf"),
    "weights quantized by others": (config(quantization_config={"bits": 4}), "quantized already"),
    "another activation": (config(hidden_act="gelu"), "not silu"),
    "only pickles": (only_pickles, "only pickled weights"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "There is neither"),
    "an empty file of weights": (cut(WEIGHTS, 0), "cut or no safetensors"),
    "a cut length": (cut(WEIGHTS, 5), "cut or no safetensors"),
    "a cut header": (cut(WEIGHTS, 500), "cut or no safetensors"),
    "cut weights": (cut(WEIGHTS, 300_000), "may be cut"),
    "a header of 2^60 bytes": (write(WEIGHTS, (2**60).to_bytes(8, "little") + b"{}"), "1152921504606846976 bytes"),
    "a header that is no JSON": (write(WEIGHTS, (4).to_bytes(8, "little") + b"\xff\xfe{}"), "not JSON"),
    "weights beyond the file": (entry(data_offsets=[0, 2**40]), "lies outside"),
    "weights that end before they begin": (entry(data_offsets=[256, 0]), "lies outside"),
    "negative offsets": (entry(data_offsets=[-256, 0]), "impossible numbers"),
    "offsets that are no numbers": (entry(data_offsets=["0", 1.5]), "impossible numbers"),
    "a shape that is none": (entry(shape={"0": 64}), "impossible numbers"),
    "more elements than bytes": (entry(shape=[2**40]), "not as many bytes"),
    "weights of another type": (entry(dtype="I64"), "F32, F16 and BF16 can be converted"),
    "weights that overlap": (moved(-4), "overlap"),
    "infinite weights": (infinite, "no numbers"),
    "a tensor too many": (header(extra), "'adapter', which this architecture does not have"),
    "a tensor too few": (header(lambda table: table.pop("model.norm.weight") and None), "has no tensor model.norm"),
    "a file outside by the index": (index(**{"model.norm.weight": "../../x.safetensors"}), "outside its folder"),
    "an absolute file by the index": (index(**{"model.norm.weight": "/etc/passwd.safetensors"}), "outside its folder"),
    "a pickle by the index": (index(**{"model.norm.weight": "pytorch_model.bin"}), "no safetensors file"),
    "an index that promises too much": (index(**{"lm_head.norm": WEIGHTS}), "that the index promises"),
    "an index of nothing": (write(INDEX, "{}"), "does not say which file"),
    "weights that are a link outside": (link(WEIGHTS, "/etc/hostname"), "link out of"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "neither tokenizer.model nor tokenizer.json"),
    "a tokenizer that is cut": (cut("tokenizer.json", 1000), "not JSON"),
    "a tokenizer that is none": (write("tokenizer.json", '{"model": {"type": "BPE"}}'), "tokenizer.json cannot be used"),
    "a token far away": (tokenizer(lambda value: value["model"]["vocab"].update(a=BIG)), "impossible number"),
    "another way to split": (tokenizer(lambda value: value.update(pre_tokenizer=None)), "none that is known"),
    "a text changed first": (tokenizer(lambda value: value.update(normalizer={"type": "Lowercase"})), "changes the text"),
    "the same token twice": (
        tokenizer(lambda value: value["added_tokens"].append(dict(value["added_tokens"][0], id=400))),
        "same token twice",
    ),
    "added tokens beyond all numbers": (write("added_tokens.json", '{"x": Infinity}'), "list of added tokens is damaged"),
    "an architecture that moves the cursor": (config(architectures=["\x1b[2J"]), "architecture is \ufffd[2J"),
    "added tokens that are none": (write("added_tokens.json", '{"x": {}}'), "list of added tokens is damaged"),
    "a template that is a number": (write("tokenizer_config.json", '{"chat_template": 7}'), "is no text"),
    "a broken letter": (write("tokenizer_config.json", '{"chat_template": "\\ud800"}'), "is no text"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_with_one_sentence_and_leaves_nothing(name, tmp_path, capsys):
    act, reason = HOSTILE[name]
    source = copied("qwen2-tied", tmp_path / "checkpoint")
    act(source)
    out = tmp_path / "out"
    out.mkdir()
    assert main([str(source), "--quant", "F16", "--out", str(out / "x.gguf")]) == 1
    said = capsys.readouterr().err
    assert reason in said and re.fullmatch(r"[^\n]{10,500}\.\n", said), said
    assert list(out.iterdir()) == []


def test_code_in_a_checkpoint_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = copied("qwen2-tied", tmp_path / "checkpoint", auto_map={"AutoModelForCausalLM": "evil.Model"})
    for name in ("evil", "json", "numpy", "tokenizers", "sitecustomize"):
        (source / f"{name}.py").write_text("open('touched', 'w')")
    (source / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch touched'\ntR.")
    convert(source, tmp_path / "x.gguf", "Q8_0", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "x.gguf"]


def test_names_of_templates_are_not_used_as_names_of_files(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    source = copied("qwen2-tied", tmp_path / "checkpoint")
    templates = [{"name": "../secret", "template": "no"}, {"name": "default", "template": "yes"}]
    edit_json(source / "tokenizer_config.json", lambda value: value.update(chat_template=templates))
    found, _ = convert(source, tmp_path / "x.gguf", "F16", "x")
    assert found.values["tokenizer.chat_template"] == "yes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "secret", "x.gguf"]


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "added_tokens.json", "tokenizer.model"])
def test_a_link_carries_nothing_private_into_the_model(name, tmp_path, capsys):
    (tmp_path / "secret").write_text(json.dumps({"chat_template": SECRET, SECRET: 410}))
    source = copied("llama-spm", tmp_path / "checkpoint")
    link(name, tmp_path / "secret")(source)
    assert main([str(source), "--quant", "F16", "--out", str(tmp_path / "x.gguf")]) == 1
    assert "is a link out of the checkpoint's folder" in capsys.readouterr().err
    assert not (tmp_path / "x.gguf").exists()


def test_links_inside_the_cache_of_the_hubs_library_are_followed(tmp_path):
    snapshot = copied("qwen2-tied", tmp_path / "models--a--b" / "snapshots" / "0123")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    convert(snapshot, tmp_path / "x.gguf", "F16", "x")
    assert read_header(tmp_path / "x.gguf").n_parameters == 88_640


def test_the_file_has_no_bytes_that_were_not_in_the_checkpoint(tmp_path):
    source = copied("qwen2-tied", tmp_path / "checkpoint", _name_or_path=f"/home/{SECRET}/model")
    convert(source, tmp_path / "a.gguf", "F16", "x")
    convert(source, tmp_path / "b.gguf", "F16", "x")
    content = (tmp_path / "a.gguf").read_bytes()
    assert content == (tmp_path / "b.gguf").read_bytes(), "something that was in memory by chance"
    assert (
        SECRET.encode() not in content and str(tmp_path).encode() not in content and str(Path.home()).encode() not in content
    )
    found = read_header(tmp_path / "a.gguf")
    covered = sum(tensor.n_bytes for tensor in found.tensors)
    end = found.tensors[0].offset
    for tensor in found.tensors:
        assert not any(content[end : tensor.offset])  # padding is zeros
        end = tensor.offset + tensor.n_bytes
    assert covered == 2 * 88_640 + 2 * sum(tensor.n_elements for tensor in found.tensors if tensor.type == "F32")


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path, capsys):
    out = tmp_path / "x.gguf"
    out.write_text("mine")
    arguments = [str(FOLDER / "qwen2-tied"), "--quant", "f16", "--out", str(out)]
    assert main(arguments) == 1 and "--force" in capsys.readouterr().err and out.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    assert read_header(out).file_type == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--quant", "Q5_X"], "There is no type 'Q5_X'; there are: F32, F16,"),
        (["--quant", "IQ2_XXS"], "needs an importance matrix"),
        (["--out", "/nowhere/x.gguf"], "no folder /nowhere"),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_is_read(arguments, reason, tmp_path, capsys):
    assert main([str(FOLDER / "qwen2"), "--out", str(tmp_path / "x.gguf"), *arguments]) == 1
    assert reason in capsys.readouterr().err
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "x.gguf")]) == 1
    assert "neither a folder nor the name of a repository" in capsys.readouterr().err


def test_without_room_on_the_disk_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("convert.conversion.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ConvertError, match=r"GB are needed in .* but 0\.0 GB are free"):
        convert(FOLDER / "qwen2", tmp_path / "x.gguf", "F16", "x")
    assert list(tmp_path.iterdir()) == []
