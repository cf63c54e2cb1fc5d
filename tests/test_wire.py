"""The contract of OpenAI's wire, streamed and not, made anew and from the answer cache, with strict types."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from api.choice import Choice
from api.completions import Legacy, best
from engine.request import Delta
from tests.conftest import Server

USER = [{"role": "user", "content": "What is 2 + 3?"}]
STORY = [{"role": "user", "content": "Tell me a story about a fox."}]
SMALL = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
FLAG = {"type": "function", "function": {"name": "flag", "description": "Sets a flag.", "parameters": SMALL}}
NAMED = {"type": "function", "function": {"name": "flag"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "small", "schema": SMALL, "strict": True}}
RESPONSE_TOOL = {"type": "function", "name": "flag", "parameters": SMALL}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"messages": STORY, "max_tokens": 60},
    "thoughts": {"messages": USER},
    "thoughts cut off": {"messages": USER, "max_tokens": 10},
    "whole": {"messages": [{"role": "user", "content": "Hello!"}]},
    "stop": {"messages": STORY, "stop": ["fox", "the"]},
    "other letters": {"messages": [{"role": "user", "content": "Say 東京 🦊👨‍👩‍👧 é"}], "max_tokens": 30},
    "seed": {"messages": STORY, "temperature": 1.0, "seed": 5, "max_tokens": 20},
    "bias": {"messages": STORY, "logit_bias": {"300": 100}, "max_tokens": 5},
    "schema": {"messages": USER, "response_format": FORMAT},
    "object": {"messages": USER, "response_format": {"type": "json_object"}, "max_tokens": 20},
    "grammar": {"messages": USER, "grammar": 'root ::= "yes" | "no"'},
    "call": {"messages": USER, "tools": [FLAG], "tool_choice": "required", "parallel_tool_calls": False},
    "named call": {"messages": USER, "tools": [FLAG], "tool_choice": NAMED},
    "call cut off": {"messages": USER, "tools": [FLAG], "tool_choice": NAMED, "max_tokens": 22},
    "no call": {"messages": USER, "tools": [FLAG], "tool_choice": "none"},
    "free": {"messages": USER, "tools": [FLAG]},
    "chances": {"messages": STORY, "logprobs": True, "top_logprobs": 3, "max_tokens": 20},
    "three": {"messages": STORY, "n": 3, "temperature": 1.0, "seed": 1, "max_tokens": 20},
    "three alike": {"messages": STORY, "n": 3, "max_tokens": 20},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps answers; with one thread, as `server`."""
    with Server("--cache-dir", str(tmp_path_factory.mktemp("cache")), "--threads", "1", keep=True) as server:
        yield server


def post(server: Server, path: str, body: Any, **headers: str) -> tuple[int, bytes, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def whole(server: Server, fields: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> tuple[Any, Any]:
    status, data, got = post(server, path, {"model": "default"} | fields, **headers)
    assert status == 200, data
    return json.loads(data), got


def streamed(server: Server, fields: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> tuple[Any, Any]:
    options = {"model": "default", "stream": True, "stream_options": {"include_usage": True}}
    status, data, got = post(server, path, options | fields, **headers)
    assert status == 200, data
    assert got["Content-Type"] == "text/event-stream; charset=utf-8"
    *events, end = data.decode().split("\n\n")
    assert (events.pop(), end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(": ")], got


def fold(chunks: list[Any]) -> Any:
    """A whole completion of a stream's chunks; everything that a strict client may insist on is checked on the way."""
    assert len({(c["id"], c["created"], c["model"], c["object"], c["system_fingerprint"]) for c in chunks}) == 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    *chunks, last = chunks
    assert last["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks)
    choices: dict[int, Any] = {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        delta, i = choice["delta"], choice["index"]
        if i not in choices:
            assert delta == {"role": "assistant", "content": delta["content"], "refusal": None}
            assert delta["content"] in ("", None)
            choices[i] = {"index": i, "message": delta, "finish_reason": None, "logprobs": []}
            continue
        assert "role" not in delta
        told = choices[i]
        assert told["finish_reason"] is None, "nothing comes after the end"
        told["finish_reason"] = choice["finish_reason"]
        told["logprobs"] += choice["logprobs"]["content"] if choice["logprobs"] else []
        message = told["message"]
        for name in ("content", "reasoning_content"):
            if name in delta:
                message[name] = (message.get(name) or "") + delta[name]
        for call in delta.get("tool_calls", []):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                assert (call["type"], call["id"][:5]) == ("function", "call_")
                calls.append({"id": call["id"], "type": "function", "function": call["function"]})
            else:
                assert set(call) == {"index", "function"}
                assert set(call["function"]) == {"arguments"}
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return {"choices": [choices[i] for i in range(len(choices))], "usage": last["usage"]}


def bare(completion: Any) -> Any:
    """What must be the same however the answer is told."""
    choices = []
    for choice in completion["choices"]:
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls", [])]
        logprobs = choice["logprobs"]["content"] if isinstance(choice["logprobs"], dict) else choice["logprobs"] or []
        told = (message["content"], message.get("reasoning_content"), calls, choice["finish_reason"], logprobs)
        choices.append((choice["index"], *told))
    usage = completion["usage"]
    details = usage["completion_tokens_details"]
    return choices, usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], details


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_an_answer_is_the_same_streamed_or_not_made_anew_or_kept(kept, fields):
    anew = {"Cache-Control": "no-store"}
    (plain, headers), (chunks, _) = whole(kept, fields, **anew), streamed(kept, fields, **anew)
    assert headers["X-Linnet-Cache"] == "bypass"
    ChatCompletion.model_validate(plain, strict=True)
    if "temperature" not in fields:  # dice are so sharp that the rounding of another batch can turn them
        assert bare(fold(chunks)) == bare(plain)
    made, _ = whole(kept, fields)
    (hit, headers), (hits, more) = whole(kept, fields), streamed(kept, fields)
    assert headers["X-Linnet-Cache"] == more["X-Linnet-Cache"] == "hit"
    ChatCompletion.model_validate(hit, strict=True)
    assert bare(hit) == bare(fold(hits)) == bare(made)
    if "temperature" not in fields:
        assert bare(made) == bare(plain)
    assert len({plain["id"], hit["id"], chunks[0]["id"], hits[0]["id"]}) == 4
    assert hit["usage"]["prompt_tokens_details"]["cached_tokens"] == hit["usage"]["prompt_tokens"]


def one(server: Server, case: str, **fields: Any) -> Any:
    completion, _ = whole(server, CASES[case] | fields)
    return completion["choices"][0]


def test_each_end_has_its_reason(server):
    reasons = {case: one(server, case)["finish_reason"] for case in ("plain", "whole", "stop", "named call", "call cut off")}
    assert reasons == {
        "plain": "length",
        "whole": "stop",
        "stop": "stop",
        "named call": "tool_calls",
        "call cut off": "length",
    }


def test_thoughts_are_apart_from_the_answer_and_counted(server):
    completion, _ = whole(server, CASES["thoughts"])
    message = completion["choices"][0]["message"]
    assert message["content"] == "2 + 3 = 5."
    assert "2 + 3" in message["reasoning_content"]
    assert "think>" not in message["content"] + message["reasoning_content"]
    n = completion["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < n < completion["usage"]["completion_tokens"]


def test_thoughts_have_a_budget_after_which_the_answer_comes():
    with Server("--think-budget", "8") as server:
        completion, _ = whole(server, CASES["thoughts"])
        message = completion["choices"][0]["message"]
        assert message["content"]
        assert 8 <= completion["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 14  # and what closes them
        chunks, _ = streamed(server, CASES["thoughts"])
        assert bare(fold(chunks)) == bare(completion)


def test_an_answer_keeps_to_its_schema_and_its_grammar(server):
    assert set(json.loads(one(server, "schema")["message"]["content"])) == {"ok"}
    assert one(server, "object", max_tokens=None)["message"]["content"].startswith("{")
    assert one(server, "grammar")["message"]["content"] in ("yes", "no")


def test_calls_are_made_where_they_must_be_and_not_where_they_must_not(server):
    for case in ("call", "named call"):
        message = one(server, case)["message"]
        assert message["content"] is None
        (call,) = message["tool_calls"]
        assert call["function"]["name"] == "flag"
        assert set(json.loads(call["function"]["arguments"])) == {"ok"}
    for case in ("no call", "free", "plain"):
        assert "tool_calls" not in one(server, case)["message"]


def test_a_conversation_with_calls_can_be_sent_back_as_it_came(server):
    message = one(server, "call")["message"]
    answer = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "done"}
    assert one(server, "free", messages=[*USER, message, answer])["finish_reason"] in ("stop", "length")


def test_chances_are_those_of_the_tokens_of_the_answer(server):
    completion, _ = whole(server, CASES["chances"])
    (choice,) = completion["choices"]
    told = choice["logprobs"]["content"]
    assert len(told) == completion["usage"]["completion_tokens"]
    assert b"".join(bytes(chance["bytes"]) for chance in told).decode() == choice["message"]["content"]
    for chance in told:
        assert chance["logprob"] <= 0
        assert len(chance["top_logprobs"]) == 3
        assert chance["top_logprobs"][0]["logprob"] == chance["logprob"], "the likeliest was taken"
    assert one(server, "chances", top_logprobs=None)["logprobs"]["content"][0]["top_logprobs"] == []
    assert one(server, "plain")["logprobs"] is None


def test_several_choices_come_interleaved_each_with_its_own_dice_or_all_alike(server):
    chunks, _ = streamed(server, CASES["three"])
    order = [chunk["choices"][0]["index"] for chunk in chunks[:-1]]
    assert order[:3] == [0, 1, 2], "each role first"
    assert order != sorted(order), "not one after the other"
    completion = fold(chunks)
    texts = {choice["message"]["content"] for choice in completion["choices"]}
    assert len(texts) == 3
    assert len({c["message"]["content"] for c in whole(server, CASES["three alike"])[0]["choices"]}) == 1


def test_a_bias_makes_a_token_certain_and_another_impossible(server):
    (token,) = post_json(server, "/tokenize", {"content": "z"})["tokens"]
    assert one(server, "plain", logit_bias={str(token): 100}, max_tokens=4)["message"]["content"] == "zzzz"
    first = one(server, "chances", max_tokens=1)["logprobs"]["content"][0]["token"]
    (banned,) = post_json(server, "/tokenize", {"content": first})["tokens"]
    assert one(server, "plain", logit_bias={str(banned): -100}, max_tokens=1)["message"]["content"] != first


def post_json(server: Server, path: str, body: Any) -> Any:
    status, data, _ = post(server, path, body)
    assert status == 200, data
    return json.loads(data)


def test_every_path_is_there_without_its_prefix(server):
    for path, body in {
        "/chat/completions": {"messages": USER},
        "/completions": {"prompt": "a", "max_tokens": 2},
        "/embeddings": {"input": "a"},
        "/responses": {"input": "a", "max_output_tokens": 2},
        "/tokenize": {"content": "a"},
        "/detokenize": {"tokens": [5]},
    }.items():
        assert post_json(server, path, body).keys() == post_json(server, f"/v1{path}", body).keys()
    for path in ("/models", "/models/demo", "/v1/models", "/v1/models/demo"):
        with urllib.request.urlopen(server.url + path) as response:
            assert response.status == 200


def test_a_request_has_a_name_and_a_duration(server):
    _, headers = whole(server, CASES["whole"], **{"X-Request-Id": "mine-1"})
    assert headers["X-Request-Id"] == "mine-1"
    assert int(headers["openai-processing-ms"]) >= 0
    _, _, headers = post(server, "/v1/chat/completions", b"{", **{"X-Request-Id": "not one"})
    assert headers["X-Request-Id"].startswith("req_")


def test_the_fingerprint_is_the_same_from_run_to_run(server, kept):
    assert whole(server, CASES["whole"])[0]["system_fingerprint"] == whole(kept, CASES["whole"])[0]["system_fingerprint"]


ERRORS: dict[str, tuple[str, Any, int, str | None, str | None]] = {
    "no JSON": ("/v1/chat/completions", b"{", 400, None, None),
    "no such route": ("/v1/nothing", {}, 404, None, None),
    "unknown model": ("/v1/chat/completions", {"model": "gpt-4", "messages": USER}, 404, "model_not_found", "model"),
    "too long": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "word " * 9000}]},
        400,
        "context_length_exceeded",
        "messages",
    ),
    "too long a prompt": ("/v1/completions", {"prompt": "word " * 9000}, 400, "context_length_exceeded", "prompt"),
    "too long an input": ("/v1/embeddings", {"input": "word " * 9000}, 400, "context_length_exceeded", "input"),
    "too large": ("/v1/chat/completions", b" " * 9 * 2**20, 413, "request_too_large", None),
    "unknown field": ("/v1/chat/completions", {"messages": USER, "magic": 1}, 400, None, "magic"),
    "suffix": ("/v1/completions", {"prompt": "a", "suffix": "b"}, 400, "unsupported_parameter", "suffix"),
    "an image": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        400,
        "unsupported_parameter",
        "messages[0].content[0]",
    ),
    "top_logprobs alone": (
        "/v1/chat/completions",
        {"messages": USER, "top_logprobs": 2},
        400,
        "invalid_value",
        "top_logprobs",
    ),
    "no such token": (
        "/v1/chat/completions",
        {"messages": USER, "logit_bias": {"99999": 1}},
        400,
        "invalid_value",
        "logit_bias",
    ),
    "no token at all": (
        "/v1/chat/completions",
        {"messages": USER, "logit_bias": {"x": 1}},
        400,
        "invalid_value",
        "logit_bias",
    ),
    "no such prompt token": ("/v1/completions", {"prompt": [99999]}, 400, "invalid_value", "prompt"),
    "no grammar": ("/v1/chat/completions", {"messages": USER, "grammar": "root ::= foo"}, 400, "invalid_value", "grammar"),
    "left recursion": (
        "/v1/chat/completions",
        {"messages": USER, "grammar": 'root ::= root "a"'},
        400,
        "invalid_value",
        "grammar",
    ),
    "a nested grammar": (
        "/v1/chat/completions",
        {"messages": USER, "grammar": "root ::= " + "(" * 60000},
        400,
        "invalid_value",
        "grammar",
    ),
    "a schema that cannot be followed": (
        "/v1/chat/completions",
        {"messages": USER, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
        400,
        "invalid_value",
        "response_format.json_schema.schema",
    ),
    "a schema too long": (
        "/v1/chat/completions",
        {
            "messages": USER,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "string", "maxLength": 10**9}},
            },
        },
        400,
        "invalid_value",
        "response_format.json_schema.schema",
    ),
    "a choice of no tool": (
        "/v1/chat/completions",
        {"messages": USER, "tool_choice": "required"},
        400,
        "invalid_value",
        "tool_choice",
    ),
    "a choice of another tool": (
        "/v1/chat/completions",
        {"messages": USER, "tools": [FLAG], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        400,
        "invalid_value",
        "tool_choice",
    ),
    "parameters that cannot be followed": (
        "/v1/chat/completions",
        {
            "messages": USER,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "minProperties": 2}}}],
        },
        400,
        "invalid_value",
        "tools[0].function.parameters",
    ),
    "a schema that cannot be followed, in a response": (
        "/v1/responses",
        {"input": "a", "text": {"format": {"type": "json_schema", "name": "x", "schema": {"minProperties": 2}}}},
        400,
        "invalid_value",
        "text.format.schema",
    ),
    "parameters that cannot be followed, in a response": (
        "/v1/responses",
        {"input": "a", "tools": [RESPONSE_TOOL | {"parameters": {"type": "object", "minProperties": 2}}]},
        400,
        "invalid_value",
        "tools[0].parameters",
    ),
    "a grammar beside tools": (
        "/v1/chat/completions",
        {"messages": USER, "grammar": 'root ::= "a"', "tools": [FLAG]},
        400,
        "invalid_value",
        "grammar",
    ),
    "a bias to no token": (
        "/v1/completions",
        {"prompt": "a", "logit_bias": {"99999999": 1}},
        400,
        "invalid_value",
        "logit_bias",
    ),
    "a bias told twice": (
        "/v1/completions",
        {"prompt": "a", "logit_bias": {"5": 1, "05": 1}},
        400,
        "invalid_value",
        "logit_bias",
    ),
    "a prompt of no tokens": ("/v1/completions", {"prompt": [99999999]}, 400, "invalid_value", "prompt"),
    "a message more than may be": (
        "/v1/responses",
        {"instructions": "x", "input": [*USER] * 2000},
        400,
        "invalid_value",
        "input",
    ),
    "what an item would lose": (
        "/v1/responses",
        {"input": [USER[0] | {"tool_calls": [1]}]},
        400,
        None,
        "input[0].tool_calls",
    ),
    "half a megabyte to count": ("/tokenize", {"content": "a" * 2**20}, 400, "context_length_exceeded", "content"),
    "too many choices": ("/v1/chat/completions", {"messages": USER, "n": 1000}, 400, "invalid_value", "n"),
    "too many prompts": ("/v1/completions", {"prompt": ["a"] * 1000}, 400, "invalid_value", "prompt"),
    "too many dimensions": ("/v1/embeddings", {"input": "a", "dimensions": 10**6}, 400, "invalid_value", "dimensions"),
    "an empty input": ("/v1/embeddings", {"input": ""}, 400, "invalid_value", "input"),
    "memory": (
        "/v1/responses",
        {"input": "a", "previous_response_id": "resp_1"},
        400,
        "unsupported_parameter",
        "previous_response_id",
    ),
    "an unknown item": ("/v1/responses", {"input": [{"type": "item_reference", "id": "x"}]}, 400, "invalid_value", "input"),
}


@pytest.mark.parametrize(("path", "body", "status", "code", "param"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_done_is_refused_in_openais_shape(server, path, body, status, code, param):
    got, data, headers = post(server, path, body)
    error = json.loads(data)
    assert got == status, data
    assert headers["Content-Type"] == "application/json"
    assert set(error) == {"error"}
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert len(data) < 4096
    assert (error["error"]["code"], error["error"]["param"]) == (code, param), data
    assert error["error"]["type"] == "invalid_request_error"


def test_plain_completions_satisfy_a_strict_client(server):
    body = {
        "prompt": ["Once upon", "The sun"],
        "n": 2,
        "max_tokens": 6,
        "logprobs": 2,
        "model": "default",
    }
    completion = post_json(server, "/v1/completions", body)
    Completion.model_validate(completion, strict=True)
    assert [choice["index"] for choice in completion["choices"]] == [0, 1, 2, 3]
    for choice in completion["choices"]:
        logprobs = choice["logprobs"]
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert logprobs["text_offset"][:2] == [0, len(logprobs["tokens"][0])]
        assert all(2 <= len(top) <= 3 for top in logprobs["top_logprobs"])
    chunks, _ = streamed(server, body, "/v1/completions")
    texts = [""] * 4
    for chunk in chunks:
        Completion.model_validate(
            chunk | {"choices": [c | {"finish_reason": c["finish_reason"] or "stop"} for c in chunk["choices"]]}, strict=True
        )
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in completion["choices"]]
    assert chunks[-1]["usage"]["completion_tokens"] == completion["usage"]["completion_tokens"] == 24
    assert chunks[-1]["usage"]["prompt_tokens"] == completion["usage"]["prompt_tokens"]


def test_chances_of_parts_of_a_character_are_told_as_bytes_and_begin_where_it_does():
    def chance(*data: int) -> dict[str, Any]:
        return {"bytes": list(data), "logprob": -1.0, "top_logprobs": []}

    told, more = Legacy(3), Legacy(3)
    chances = [chance(97), *map(chance, "🐦".encode()), chance(98)]
    whole = told.push(chances)
    assert whole["tokens"][:2] == ["a", "bytes:\\xf0"]
    assert whole["text_offset"] == [3, 4, 4, 4, 4, 5]
    assert [offset for one in chances for offset in more.push([one])["text_offset"]] == whole["text_offset"]


def test_a_prompt_may_be_tokens_and_is_echoed(server):
    text = "Once upon a time"
    tokens = post_json(server, "/tokenize", {"content": text, "add_special": True})["tokens"]
    assert tokens[1:] == post_json(server, "/tokenize", {"content": text})["tokens"]
    assert post_json(server, "/detokenize", {"tokens": tokens})["content"] == text
    by_text, by_tokens, by_lists = (
        post_json(server, "/v1/completions", {"prompt": prompt, "max_tokens": 4, "echo": True})["choices"][0]["text"]
        for prompt in (text, tokens, [tokens])
    )
    assert by_text == by_tokens == by_lists
    assert by_text.startswith(text)
    assert len(by_text) > len(text)


def test_the_best_of_several_has_the_likeliest_tokens(server):
    def choice(*logprobs: float) -> Choice:
        choice = Choice(logprobs=True)
        choice.push(Delta("", "x", logprobs=[["x", logprob, []] for logprob in logprobs]))
        return choice

    unlikely, likely, long = choice(-2.0), choice(-0.5, -0.7), choice(-0.6, -0.6, -0.6, -0.7)
    assert best([unlikely, likely, long], 1) == [likely]
    assert best([unlikely, likely, long], 2) == [likely, long]
    body = {"prompt": "The sun", "temperature": 1.5, "seed": 3, "max_tokens": 5, "best_of": 4, "n": 2}
    found = post_json(server, "/v1/completions", body)
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert all(choice["logprobs"] is None for choice in found["choices"])
    assert 10 < found["usage"]["completion_tokens"] <= 20, "all that were made count"


def test_vectors_have_length_one_and_texts_alike_are_near(server):
    body = {
        "input": ["The fox is red.", "The fox is reddish.", "12 + 7 = 19"],
        "encoding_format": "float",
        "model": "default",
    }
    found = post_json(server, "/v1/embeddings", body)
    CreateEmbeddingResponse.model_validate(found, strict=True)
    one, near, far = (entry["embedding"] for entry in found["data"])

    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert product(one, one) == pytest.approx(1)
    assert product(one, near) > product(one, far)
    short = post_json(server, "/v1/embeddings", body | {"dimensions": 16})["data"][0]["embedding"]
    assert product(short, short) == pytest.approx(1)
    assert short[3] / short[0] == pytest.approx(one[3] / one[0])
    long = "The fox is red. " * 60  # more than one step's tokens
    alone = post_json(server, "/v1/embeddings", {"input": long})["data"][0]["embedding"]
    assert alone == post_json(server, "/v1/embeddings", {"input": [long]})["data"][0]["embedding"]


def test_vectors_are_made_beside_running_answers(server, client):
    alone = client.embeddings.create(model="default", input="The fox is red. " * 20).data[0].embedding
    text = one(server, "plain")["message"]["content"]
    with client.chat.completions.create(model="default", messages=STORY, max_tokens=60, stream=True) as stream:
        first = next(stream)
        assert client.embeddings.create(model="default", input="The fox is red. " * 20).data[0].embedding == pytest.approx(
            alone, abs=1e-4
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in [first, *stream])
    assert said == text


RESPONSES: dict[str, dict[str, Any]] = {
    "thoughts": {"input": "What is 2 + 3?", "instructions": "Be kind."},
    "cut": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Tell me a story."}]}],
        "max_output_tokens": 5,
    },
    "call": {"input": "What is 2 + 3?", "tools": [RESPONSE_TOOL], "tool_choice": {"type": "function", "name": "flag"}},
    "schema": {"input": "Yes?", "text": {"format": {"type": "json_schema", "name": "small", "schema": SMALL}}},
    "history": {
        "input": [
            {"role": "user", "content": "Set it."},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "call_1", "name": "flag", "arguments": '{"ok":true}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "done"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "It is set.", "annotations": []}],
            },
            {"role": "user", "content": "Hello!"},
        ]
    },
}


@pytest.mark.parametrize("fields", RESPONSES.values(), ids=RESPONSES)
def test_a_response_is_the_same_streamed_or_not(server, fields):
    response = post_json(server, "/v1/responses", fields)
    Response.model_validate_json(json.dumps(response), strict=True)
    _, data, _ = post(server, "/v1/responses", fields | {"stream": True})
    events = []
    for event in data.decode().split("\n\n")[:-1]:
        name, told = event.split("\n")
        events.append(json.loads(told.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    final = events[-1]["response"]
    assert events[-1]["type"] == f"response.{final['status']}"

    def bare(response: Any) -> Any:
        items = [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]
        return items, response["status"], response["usage"]["output_tokens"], response["incomplete_details"]

    assert bare(final) == bare(response)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == final["output"]
    statuses = [item["status"] for item in done]
    assert statuses == ["completed"] * (len(done) - 1) + [final["status"]]
    for index, item in enumerate(done):
        deltas = [e["delta"] for e in events if e["type"].endswith(".delta") and e["output_index"] == index]
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert "".join(deltas) == text


def test_the_helpers_of_openais_package_work(client: openai.OpenAI):
    assert Model.model_validate(client.models.retrieve("demo").model_dump(), strict=True).id == "demo"
    assert client.responses.create(model="default", input="What is 2 + 3?").output_text == "2 + 3 = 5."


def test_the_description_is_true_about_the_routes(server):
    with urllib.request.urlopen(f"{server.url}/openapi.json") as response:
        described = json.load(response)
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            if "{" in path or method == "delete":
                continue
            request = urllib.request.Request(
                server.url + path,
                b"{}" if method == "post" else None,
                {"Content-Type": "application/json"},
                method=method.upper(),
            )
            try:
                with urllib.request.urlopen(request) as response:
                    status = response.status
            except urllib.error.HTTPError as error:
                status = error.code
                error.close()
            assert status == (400 if method == "post" else 200), path
            assert ("requestBody" in told) == (method == "post")


@pytest.mark.parametrize("question", ["Tell me a story about a fox.", "What is 47 + 38?"])
def test_an_answer_that_was_cut_goes_on_where_it_was(client, question):
    asked = [{"role": "user", "content": question}]
    whole = client.chat.completions.create(model="default", messages=asked).choices[0].message
    cut = client.chat.completions.create(model="default", messages=asked, max_tokens=9).choices[0].message
    again = [
        *asked,
        {"role": "assistant", "content": cut.content, "reasoning_content": getattr(cut, "reasoning_content", "")},
    ]
    rest = (
        client.chat.completions.create(model="default", messages=again, extra_body={"continue_final_message": True})
        .choices[0]
        .message
    )
    assert cut.content + rest.content == whole.content
    thoughts = [getattr(message, "reasoning_content", None) or "" for message in (cut, rest, whole)]
    assert thoughts[0] + thoughts[1] == thoughts[2]
