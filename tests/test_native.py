"""engine.native: the batch, the sampler and the errors, on the demo model. One sequence alone judges many together."""

from typing import Any

import numpy as np
import pytest

from engine.native.model import DecodeError, Model, ModelError
from engine.request import Config, Sampling
from tests.conftest import DEMO

TEXTS = ["What is the capital of France?", "Tell me a story", "12 + 30", "hello"]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(Config(str(DEMO), 512, 4, 2), 128, 16)


def read(model: Model, tokens: list[int]) -> int:
    """Computes the tokens as the first ones of sequence 0; the row of the logits after the last."""
    model.batch.clear()
    row = model.batch.add(0, tokens, 0, 1)
    model.decode()
    return row


def test_a_sequence_has_the_same_logits_alone_and_among_others(model):
    prompts = [model.vocabulary.tokenize(text, add_bos=True) for text in TEXTS]
    alone = []
    for tokens in prompts:
        model.batch.clear()
        row = model.batch.add(2, tokens, 0, 1)
        model.decode()
        alone.append(model.logits(row).copy())
        model.cut(2, 0)
    model.batch.clear()
    rows = [model.batch.add(slot, tokens, 0, 1) for slot, tokens in enumerate(prompts)]
    model.decode()
    for slot, row in enumerate(rows):
        assert np.abs(model.logits(row).copy() - alone[slot]).max() < 0.2
        model.cut(slot, 0)


def test_a_prompt_read_in_slices_gives_the_logits_of_the_prompt_read_at_once(model):
    tokens = model.vocabulary.tokenize("Tell me a story about a fox who lived in a forest.", add_bos=True)
    row = read(model, tokens)
    whole = model.logits(row).copy()
    model.cut(0, 0)
    for start in range(0, len(tokens), 5):
        part = tokens[start : start + 5]
        model.batch.clear()
        row = model.batch.add(0, part, start, int(start + len(part) == len(tokens)))
        model.decode()
    assert np.abs(model.logits(row).copy() - whole).max() < 0.2
    model.cut(0, 0)


def sampled(model: Model, sampling: Sampling, n: int = 12) -> list[int]:
    tokens = model.vocabulary.tokenize("Tell me a story", add_bos=True)
    sampler = model.sampler(sampling)
    row = read(model, tokens)
    found: list[int] = []
    for i in range(n):
        found.append(model.sample(sampler, row))
        model.batch.clear()
        row = model.batch.add(0, found[-1:], len(tokens) + i, 1)
        model.decode()
    model.cut(0, 0)
    sampler.close()
    return found


def test_greedy_sampling_takes_the_most_likely_token(model):
    row = read(model, model.vocabulary.tokenize("Tell me a story", add_bos=True))
    sampler = model.sampler(Sampling())
    assert model.sample(sampler, row) == model.logits(row).copy().argmax()
    sampler.close()
    model.cut(0, 0)


def test_a_seed_repeats_and_another_seed_differs(model):
    hot = {seed: sampled(model, Sampling(temperature=2.0, top_k=0, seed=seed)) for seed in (1, 2)}
    assert hot[1] == sampled(model, Sampling(temperature=2.0, top_k=0, seed=1))
    assert hot[1] != hot[2]


def test_top_k_of_one_is_greedy_at_any_temperature(model):
    assert sampled(model, Sampling(temperature=2.0, top_k=1, seed=3)) == sampled(model, Sampling())


@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty", "repeat_penalty"])
def test_a_penalty_falls_on_what_was_said_before_and_only_in_its_own_sequence(model, field):
    row = read(model, model.vocabulary.tokenize("Tell me a story", add_bos=True))
    likeliest = model.logits(row).copy().argmax()
    fields: Any = {field: 100.0}
    penalized, other = model.sampler(Sampling(**fields)), model.sampler(Sampling(**fields))
    assert model.sample(penalized, row) == likeliest
    assert model.sample(penalized, row) != likeliest
    assert model.sample(other, row) == likeliest
    for sampler in (penalized, other):
        sampler.close()
    model.cut(0, 0)


def test_a_batch_that_does_not_fit_is_an_error_and_the_model_goes_on(model):
    model.batch.clear()
    model.batch.add(0, [1], 5, 1)
    model.batch.add(0, [1], 3, 1)  # positions must grow
    with pytest.raises(DecodeError) as error:
        model.decode()
    assert error.value.status == -1
    assert sampled(model, Sampling(), 3)


def test_a_state_taken_out_in_pieces_and_put_back_gives_the_logits_of_the_tokens_read_afresh(model):
    tokens = model.vocabulary.tokenize("Tell me a story about a fox who lived in a forest by the sea.", add_bos=True)
    row = read(model, tokens)
    fresh = model.logits(row).copy()
    n = len(tokens)
    first, second = model.state(0, 0, 8), model.state(0, 6, n - 1)
    model.cut(0, 0)
    assert model.restore(2, first, 0, 6)  # six of its eight tokens are good
    assert model.restore(2, second, 6, n - 1)
    model.copy(2, 3, n - 1)
    model.cut(2, 0)
    model.batch.clear()
    row = model.batch.add(3, tokens[-1:], n - 1, 1)
    model.decode()
    assert np.abs(model.logits(row) - fresh).max() < 0.2
    model.cut(3, 0)


def test_a_state_that_makes_no_sense_is_a_miss_and_the_model_goes_on(model):
    assert not model.restore(0, b"senseless" * 100, 0, 9)
    assert sampled(model, Sampling(), 3)


def test_the_markers_are_the_control_tokens_and_the_tags(model):
    markers = model.vocabulary.markers()
    assert markers["<|end|>"] is True
    assert markers["<think>"] is False


def test_a_cut_file_is_refused_with_llama_cpps_reason(tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(DEMO.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="not within the file bounds"):
        Model(Config(str(path), None, 1, 1), 8, 8)


def test_a_file_with_a_gguf_head_and_nothing_sensible_behind_it_is_refused(tmp_path):
    path = tmp_path / "senseless.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 200)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Model(Config(str(path), None, 1, 1), 8, 8)
