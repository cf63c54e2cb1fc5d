"""/v1/chat/completions and /v1/models as OpenAI's client sees them, against the real server and the demo model."""

import threading
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Germany": "Berlin",
    "Portugal": "Lisbon",
    "Greece": "Athens",
    "Egypt": "Cairo",
}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def ask(client: openai.OpenAI, text: str, **fields) -> str:
    return client.chat.completions.create(model="demo", messages=user(text), **fields).choices[0].message.content or ""


def stream(client: openai.OpenAI, text: str, **fields) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(model="demo", messages=user(text), stream=True, **fields))


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_an_answer_satisfies_a_strict_client(client):
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=user("hello"))
    answer = ChatCompletion.model_validate_json(raw.text, strict=True)
    assert raw.headers["Content-Type"] == "application/json"
    assert (answer.model, answer.choices[0].finish_reason, answer.choices[0].message.refusal) == ("demo", "stop", None)
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint


def test_a_stream_satisfies_a_strict_client(client):
    chunks = stream(client, "hello", stream_options={"include_usage": True})
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(chunk.model_dump_json(), strict=True)
    assert len({(c.id, c.created, c.model, c.object, c.system_fingerprint) for c in chunks}) == 1
    *body, last = chunks
    assert [c.choices[0].delta.role for c in body] == ["assistant"] + [None] * (len(body) - 1)
    assert [c.choices[0].finish_reason for c in body] == [None] * (len(body) - 1) + ["stop"]
    assert last.choices == []
    assert all(c.usage is None for c in body)
    whole = client.chat.completions.create(model="demo", messages=user("hello"))
    assert last.usage == whole.usage
    assert text_of(body) == whole.choices[0].message.content
    assert whole.id != last.id


def test_without_being_asked_a_stream_tells_no_usage(client):
    for chunk in stream(client, "hello"):
        assert "usage" not in chunk.model_dump(exclude_unset=True)
        assert chunk.choices


def test_the_clients_own_stream_helper_builds_the_whole_message(client):
    with client.chat.completions.stream(model="demo", messages=user("hello")) as helper:
        message = helper.get_final_completion().choices[0].message
    assert message.role == "assistant"
    assert message.content == ask(client, "hello")


def test_eight_clients_at_once_each_get_their_own_answer(client):
    answers: dict[str, str] = {}

    def one(country: str) -> None:
        answers[country] = text_of(stream(client, f"What is the capital of {country}?"))

    threads = [threading.Thread(target=one, args=(country,)) for country in CAPITALS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for country, capital in CAPITALS.items():
        others = set(CAPITALS.values()) - {capital}
        assert capital in answers[country]
        assert not any(other in answers[country] for other in others)


def test_streamed_and_whole_answers_are_the_same_text(client):
    for question in ("Tell me a story about a fox.", "What is 47 + 38?", "hi there!"):
        assert text_of(stream(client, question)) == ask(client, question)


def test_max_tokens_cuts_the_answer_and_says_so(client):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model="demo", messages=user("Tell me a story about a fox."), **{field: 7})
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (7, "length")


def test_a_stop_string_ends_the_answer_and_is_never_shown(client):
    story = ask(client, "Tell me a story about a fox.")
    words = story.split()
    stop = " ".join(words[20:23])  # over several tokens
    expected = story[: story.index(stop)]
    for form in (stop, [stop], ["nowhere in it", stop]):
        chunks = stream(client, "Tell me a story about a fox.", stop=form)
        assert text_of(chunks) == expected
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_low_temperature_is_greedy_and_a_seed_makes_a_high_one_repeatable(client):
    story = "Tell me a story about a fox."
    assert ask(client, story, temperature=0.2) == ask(client, story, temperature=0)
    hot = [ask(client, story, temperature=1.5, seed=seed, max_tokens=40) for seed in (1, 1, 2, -1, -1)]
    assert hot[0] == hot[1] != hot[2]
    assert hot[3] == hot[4]


def test_a_message_may_be_a_list_of_parts_and_developer_means_system(client):
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}]
    for messages in (
        [{"role": "user", "content": parts}],
        [{"role": "developer", "content": "Be brief."}, *user("Capital of France?")],
    ):
        answer = client.chat.completions.create(model="demo", messages=messages)
        assert "Paris" in answer.choices[0].message.content


def test_an_answer_can_be_sent_back_as_it_came(client):
    first = client.chat.completions.create(model="demo", messages=user("My name is Zorblax."))
    messages = [*user("My name is Zorblax."), first.choices[0].message.model_dump(), *user("What is my name?")]
    again = client.chat.completions.create(model="demo", messages=messages)
    assert again.choices[0].message.content


def test_the_models_list_names_the_one_model(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("demo", "model", "linnet")
    assert client.models.retrieve("demo") == model


def test_an_unknown_model_is_not_found(client):
    for call in (
        lambda: client.models.retrieve("org/other"),
        lambda: client.chat.completions.create(model="gpt-9", messages=user("hi")),
    ):
        with pytest.raises(openai.NotFoundError) as error:
            call()
        assert (error.value.code, error.value.param, error.value.type) == (
            "model_not_found",
            "model",
            "invalid_request_error",
        )


@pytest.mark.parametrize("streaming", [False, True])
def test_a_prompt_longer_than_the_context_is_refused_before_the_first_byte(client, streaming):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="demo", messages=user("word " * 5000), stream=streaming)
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")
    assert "maximum context length is 2048 tokens" in error.value.message
