"""Programs written for OpenAI's API work unchanged: OpenAI's own clients for Python and Node, LangChain, LiteLLM and llm.

The demo model is tiny and silly, so what is asserted is form and not wit; at temperature 0 streamed and whole answers are
the same text. Nothing but this computer may be reached.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

import openai
import pytest
from openai import pydantic_function_tool
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from tests.conftest import DEMO, PATIENCE_S, ROOT, Server

NODE_MODULES = ROOT / "build/node/node_modules"  # scripts/setup.py --dev puts them there
LOCAL = ("127.0.0.1", "::1", "localhost")
QUESTION = "What is the capital of France?"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
LONG: list[Any] = [{"role": "user", "content": "word " * 5000}]
TEXTS = ["a fox", "a hedgehog", "a fox"]


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Rome"]
    metric: bool


class Clock(BaseModel):
    """What time it is."""

    zone: Literal["UTC", "CET"]


TOOLS = [pydantic_function_tool(Weather), pydantic_function_tool(Clock)]
NAMED = {"type": "function", "function": {"name": "Weather"}}
TOOL_MODELS: dict[str, type[BaseModel]] = {"Weather": Weather, "Clock": Clock}


@pytest.fixture(autouse=True)
def only_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that phones somewhere else (prices, encodings, telemetry) fails the test that makes it do so."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connect_here(self, address):
        assert not isinstance(address, tuple) or address[0] in LOCAL, f"a client wants to reach {address}"
        return connect(self, address)

    def resolve_here(host, *arguments, **options):
        assert host in LOCAL, f"a client wants to reach {host}"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)


def create(client: openai.OpenAI, **fields) -> Any:
    return client.chat.completions.create(**{"model": "demo", "messages": ASKED} | fields)


def one_call(completion: ChatCompletion) -> Any:
    """The only call of an answer that is nothing else; its arguments fit."""
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    TOOL_MODELS[call.function.name].model_validate_json(call.function.arguments, strict=True)
    return call


# OpenAI's client for Python. What else it sees is in tests/test_chat.py.


def test_the_stream_helper_tells_each_piece_and_then_the_whole(client):
    whole = create(client)
    with client.chat.completions.stream(model="demo", messages=ASKED) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert "".join(c.choices[0].delta.content or "" for c in create(client, stream=True)) == "".join(pieces)


def test_an_answer_is_parsed_into_the_model_that_was_given_streamed_or_not(client):
    fields = {"model": "demo", "messages": ASKED, "response_format": Weather}
    parsed = client.chat.completions.parse(**fields).choices[0].message.parsed
    assert isinstance(parsed, Weather)
    with client.chat.completions.stream(**fields) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_tool_that_must_be_called_is_called_the_same_streamed_or_not(client, choice):
    fields = {"model": "demo", "messages": ASKED, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    call = one_call(client.chat.completions.create(**fields))
    assert choice == "required" or call.function.name == "Weather"
    with client.chat.completions.stream(**fields) as stream:
        events = list(stream)
        streamed = one_call(stream.get_final_completion())
    pieces = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert "".join(pieces) == streamed.function.arguments == call.function.arguments
    assert streamed.function.name == call.function.name
    assert isinstance(streamed.function.parsed_arguments, TOOL_MODELS[call.function.name])


def test_the_result_of_a_tool_is_sent_back_and_answered(client):
    message = create(client, tools=TOOLS, tool_choice=NAMED).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    answer = create(client, messages=[*ASKED, message, result], tools=TOOLS, tool_choice="none").choices[0]
    assert answer.message.content
    assert not answer.message.tool_calls
    assert answer.finish_reason == "stop"


def test_several_choices_come_under_their_numbers_streamed_or_not(client):
    fields = {"n": 2, "max_tokens": 12}  # greedy: dice could fall differently in another batch
    texts = ["", ""]
    reasons = [None, None]
    for chunk in create(client, stream=True, **fields):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    whole = create(client, **fields)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]


def test_log_probabilities_spell_the_answer_streamed_or_not(client):
    whole = create(client, logprobs=True, top_logprobs=3).choices[0]
    told = whole.logprobs.content
    assert b"".join(bytes(t.bytes) for t in told).decode() == whole.message.content
    for token in told:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "a greedy answer takes the likeliest token"
    chunks = create(client, logprobs=True, top_logprobs=3, stream=True)
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in told]
    assert [t.logprob for t in streamed] == pytest.approx([t.logprob for t in told], abs=0.01)


def test_embeddings_are_the_same_as_base64_and_as_numbers(client):
    answer = client.embeddings.create(model="demo", input=TEXTS)  # asks for base64 and decodes it
    numbers = client.embeddings.create(model="demo", input=TEXTS, encoding_format="float")
    vectors = [one.embedding for one in answer.data]
    assert [one.index for one in answer.data] == [0, 1, 2]
    for vector, one in zip(vectors, numbers.data, strict=True):
        assert vector == pytest.approx(one.embedding, abs=1e-5)
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-4)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-4)
    assert vectors[0] != pytest.approx(vectors[1], abs=0.01)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    (short,) = client.embeddings.create(model="demo", input="a fox", dimensions=8).data
    assert len(short.embedding) == 8


def test_the_older_completions_go_on_from_a_text_streamed_or_not(client):
    fields = {"model": "demo", "prompt": "Once upon", "max_tokens": 12}
    (whole,) = client.completions.create(**fields).choices
    assert whole.finish_reason == "length"
    assert whole.text
    assert "".join(c.choices[0].text for c in client.completions.create(stream=True, **fields)) == whole.text


def test_models_are_listed_and_found_by_name(client):
    assert [client.models.retrieve(model.id) for model in client.models.list()] == client.models.list().data


def test_the_asynchronous_client_streams_several_answers_at_once(server, client):
    questions = [QUESTION, "What is 47 + 38?", "hi there!"]

    async def ask(client: openai.AsyncOpenAI, question: str) -> str:
        stream = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": question}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, question) for question in questions))

    alone = [create(client, messages=[{"role": "user", "content": question}]) for question in questions]
    assert asyncio.run(ask_all()) == [answer.choices[0].message.content for answer in alone]


@pytest.mark.parametrize(
    ("fields", "kind", "code", "param"),
    [
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"web_search_options": {}}, openai.BadRequestError, "unsupported_parameter", "web_search_options"),
        ({"extra_body": {"nonsense": 1}}, openai.BadRequestError, None, "nonsense"),
        ({"messages": LONG}, openai.BadRequestError, "context_length_exceeded", "messages"),
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
    ],
    ids=["value", "unsupported", "unknown", "length", "model"],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_refusal_has_the_class_and_the_names_that_programs_look_at(client, fields, kind, code, param, streaming):
    with pytest.raises(kind) as error:
        create(client, stream=streaming, **fields)
    assert type(error.value) is kind
    assert (error.value.code, error.value.param, error.value.type) == (code, param, "invalid_request_error")


def test_a_wrong_key_and_a_full_queue_have_classes_of_their_own(endless_model):
    options = ("--api-key", "right", "--slots", "1", "--max-queue", "0", "--ctx", "50000", "--keep-loops", "--no-draft")
    with Server(*options, model=endless_model) as server:
        for key in ("wrong", "righ", "right2"):
            with server.client(api_key=key) as client, pytest.raises(openai.AuthenticationError) as refused:
                client.models.list()
            assert (refused.value.status_code, refused.value.code) == (401, "invalid_api_key")
        with server.client(api_key="right") as client, create(client, model="default", stream=True) as running:
            next(running)
            with pytest.raises(openai.RateLimitError) as full:
                create(client, model="default", max_tokens=1)
        assert (full.value.status_code, full.value.code) == (429, "rate_limit_exceeded")
        assert full.value.response.headers["Retry-After"]


# OpenAI's client for Node


@pytest.fixture(scope="module")
def node(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/node/client.mjs was told."""
    if not shutil.which("node"):
        pytest.skip("Node is not installed, so its client is not tested")
    if not (NODE_MODULES / "openai").is_dir():
        pytest.skip("OpenAI's client for Node is not installed: python3 scripts/setup.py --dev")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(ROOT / "tests/node/client.mjs", folder)  # Node looks for packages beside the program
    (folder / "node_modules").symlink_to(NODE_MODULES)
    command = ["node", "client.mjs", f"{server.url}/v1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_node_program_reads_the_same_answer_streamed_or_not(node, client):
    text = create(client).choices[0].message.content
    helped = node["streamHelper"]
    assert node["chat"]["whole"] == node["chat"]["streamed"] == text
    assert "".join(helped["heard"]) == helped["completion"]["choices"][0]["message"]["content"] == text
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert node["chat"]["usage"][key] == node["chat"]["wholeUsage"][key] > 0


def test_a_node_program_is_asked_to_call_its_tools(node):
    choice = node["toolCall"]["choice"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["function"]["name"]) == ("tool_calls", "weather")
    assert "".join(node["toolCall"]["pieces"]) == call["function"]["arguments"]
    Weather.model_validate_json(call["function"]["arguments"], strict=True)
    (arguments,) = node["toolRunner"]["called"]
    Weather.model_validate(arguments, strict=True)
    assert node["toolRunner"]["roles"] == ["user", "assistant", "tool"]
    Weather.model_validate(node["structured"], strict=True)


def test_a_node_program_gets_embeddings_models_and_errors(node, client):
    base64, numbers = node["embeddings"]
    python = [one.embedding for one in client.embeddings.create(model="demo", input=TEXTS[:2]).data]
    for one, other, third in zip(base64, numbers, python, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert one == pytest.approx(third, abs=1e-4)
    assert node["listed"] == ["demo"]
    assert node["refused"] == {"isNotFound": True, "status": 404, "code": "model_not_found", "param": "model"}


# LangChain. It and the next two are imported when wanted: collecting tests must not take seconds.


@pytest.fixture(scope="module")
def langchain() -> ModuleType:
    return importlib.import_module("langchain_openai")


@pytest.fixture
def chat(langchain, server) -> Any:
    return langchain.ChatOpenAI(
        base_url=f"{server.url}/v1", api_key="none", model="demo", temperature=0, max_retries=0, stream_usage=True
    )


def test_langchain_invokes_streams_and_counts_the_same(chat, client):
    whole = chat.invoke(QUESTION)
    chunks = list(chat.stream(QUESTION))
    streamed = sum(chunks[1:], chunks[0])
    assert whole.content == streamed.content == create(client).choices[0].message.content
    assert whole.response_metadata["finish_reason"] == streamed.response_metadata["finish_reason"] == "stop"
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        assert whole.usage_metadata[key] == streamed.usage_metadata[key] > 0


def test_langchain_streams_asynchronously_and_in_batches(chat):
    async def read() -> str:
        return "".join([chunk.content async for chunk in chat.astream(QUESTION)])

    assert [answer.content for answer in chat.batch([QUESTION, QUESTION])] == [asyncio.run(read())] * 2


@pytest.mark.parametrize("choice", ["any", "Weather"])
def test_langchain_binds_tools_and_sends_their_results_back(chat, choice):
    bound = chat.bind_tools([Weather, Clock], tool_choice=choice, parallel_tool_calls=False)
    asked = bound.invoke(QUESTION)
    chunks = list(bound.stream(QUESTION))
    for message in (asked, sum(chunks[1:], chunks[0])):
        (call,) = message.tool_calls
        assert not message.invalid_tool_calls
        assert TOOL_MODELS[call["name"]].model_validate(call["args"], strict=True)
        assert (call["name"], call["args"]) == (asked.tool_calls[0]["name"], asked.tool_calls[0]["args"])
    result = {"role": "tool", "tool_call_id": asked.tool_calls[0]["id"], "content": "sunny"}
    answer = chat.bind_tools([Weather, Clock]).invoke([{"role": "user", "content": QUESTION}, asked, result])
    assert answer.content or answer.tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structured_output(chat, method):
    assert isinstance(chat.with_structured_output(Weather, method=method).invoke(QUESTION), Weather)


def test_langchain_gets_embeddings(langchain, server, client):
    # Its own check of lengths sends the tokens of OpenAI's models, after fetching their encoding from the net.
    embeddings = langchain.OpenAIEmbeddings(
        base_url=f"{server.url}/v1", api_key="none", model="demo", max_retries=0, check_embedding_ctx_length=False
    )
    expected = [one.embedding for one in client.embeddings.create(model="demo", input=TEXTS).data]
    for found, wanted in zip(embeddings.embed_documents(TEXTS), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert embeddings.embed_query(TEXTS[1]) == pytest.approx(expected[1], abs=1e-4)


def test_langchain_raises_openais_errors(chat):
    with pytest.raises(openai.NotFoundError):
        chat.bind(model="gpt-9").invoke(QUESTION)
    with pytest.raises(openai.BadRequestError) as error:
        chat.invoke("word " * 5000)
    assert error.value.code == "context_length_exceeded"


# LiteLLM


@pytest.fixture(scope="module")
def litellm() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches prices when it is imported
        module: Any = importlib.import_module("litellm")
    module.suppress_debug_info = True
    yield module
    for kept in module.in_memory_llm_clients_cache.cache_dict.values():
        if isinstance(kept, openai.OpenAI):
            kept.close()  # it would never do so itself


@pytest.fixture
def to_demo(server) -> dict[str, Any]:
    return {"model": "openai/demo", "api_base": f"{server.url}/v1", "api_key": "none"}


def test_litellm_completes_streams_and_counts_the_same(litellm, to_demo, client):
    whole = litellm.completion(messages=ASKED, **to_demo)
    chunks = list(litellm.completion(messages=ASKED, stream=True, stream_options={"include_usage": True}, **to_demo))
    rebuilt = litellm.stream_chunk_builder(chunks)
    expected = create(client)
    for answer in (whole, rebuilt):
        assert answer.choices[0].message.content == expected.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
        assert answer.usage.completion_tokens == expected.usage.completion_tokens


def test_litellm_calls_tools_and_gets_structured_output(litellm, to_demo):
    fields = {"messages": ASKED, "tools": TOOLS, "tool_choice": NAMED, **to_demo}
    whole = litellm.completion(**fields)
    rebuilt = litellm.stream_chunk_builder(list(litellm.completion(stream=True, **fields)))
    for answer in (whole, rebuilt):
        (call,) = answer.choices[0].message.tool_calls
        assert answer.choices[0].finish_reason == "tool_calls"
        assert call.function.arguments == whole.choices[0].message.tool_calls[0].function.arguments
        Weather.model_validate_json(call.function.arguments, strict=True)
    formed = litellm.completion(messages=ASKED, response_format=Weather, **to_demo)
    Weather.model_validate_json(formed.choices[0].message.content, strict=True)


def test_litellm_gets_embeddings_and_older_completions(litellm, to_demo, client):
    expected = client.embeddings.create(model="demo", input=TEXTS)
    answer = litellm.embedding(input=TEXTS, **to_demo)
    for found, wanted in zip(answer.data, expected.data, strict=True):
        assert found["embedding"] == pytest.approx(wanted.embedding, abs=1e-4)
    fields = {"prompt": "Once upon", "max_tokens": 12}
    text = litellm.text_completion(**to_demo | fields | {"model": "text-completion-openai/demo"}).choices[0].text
    assert text == client.completions.create(model="demo", **fields).choices[0].text


def test_litellm_sorts_the_errors(litellm, to_demo):
    for fields, kind in (
        ({"model": "openai/gpt-9"}, litellm.NotFoundError),
        ({"temperature": 3}, litellm.BadRequestError),
        ({"messages": LONG}, litellm.ContextWindowExceededError),
    ):
        with pytest.raises(kind):
            litellm.completion(**{"messages": ASKED, "max_retries": 0} | to_demo | fields)


# llm, as it is used: in a shell


@pytest.fixture
def llm(server, tmp_path) -> Any:
    """`llm OPTIONS`, told about this server in its own way; returns what it prints."""
    about = f"api_base: {server.url}/v1, model_name: {DEMO.stem}"
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: linnet, {about}, supports_tools: true, supports_schema: true}}\n"
        f"- {{model_id: linnet-text, {about}, completion: true}}\n"
    )

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "llm", *options]
        environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    return run


def test_llm_prompts_streams_and_goes_on_with_a_conversation(llm, client):
    text = create(client).choices[0].message.content
    assert llm("-m", "linnet", QUESTION) == llm("-m", "linnet", "--no-stream", QUESTION) == text
    spoken = [*ASKED, {"role": "assistant", "content": text}, {"role": "user", "content": "And of Italy?"}]
    assert llm("-c", "And of Italy?") == create(client, messages=spoken).choices[0].message.content


def test_llm_offers_tools_asks_for_a_schema_and_completes_texts(llm, client):
    assert llm("-m", "linnet", "-T", "llm_version", QUESTION) == create(client, tools=TOOLS[:0]).choices[0].message.content
    Weather.model_validate_json(llm("-m", "linnet", "--schema", json.dumps(Weather.model_json_schema()), QUESTION))
    expected = client.completions.create(model="demo", prompt="Once upon", max_tokens=12).choices[0].text
    assert llm("-m", "linnet-text", "Once upon", "-o", "max_tokens", "12") == expected
