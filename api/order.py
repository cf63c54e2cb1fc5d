"""From what a client sent to what the engine is asked: every default filled in, one order for each choice."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import replace
from typing import Any

from flask import g, request

from api import schema
from api.body import AllowedTools, ChatBody, Choice, CompletionBody, Effort, Sampled, Tool
from api.control import Control
from api.errors import wrong
from api.message import Message
from api.source import Order
from engine.request import Request, Sampling, Shape
from engine.tools import CALL, CALL_END
from settings import Settings

N_SEEDS = 2**32 - 1  # the last number of 32 bits means "any seed" to llama.cpp
BUDGETS: dict[Effort, int] = {"none": 0, "minimal": 128, "low": 512, "medium": 2048}  # tokens of thoughts; others: no limit


def orders(body: Sampled, wanted: Request, settings: Settings, n: int) -> list[Order]:
    """One for each choice. With a seed, each has its own; greedy choices are all the same, and computed once."""
    sampling = wanted.sampling
    order = Order(
        request=wanted,
        repeatable=sampling.temperature == 0 or body.seed is not None,
        control=Control.read(request.cache_control, False if body.private else body.cache),
        owner=None if settings.share_answers else g.owner,
        whole=not body.stream,
    )
    if n == 1 or not sampling.temperature:
        return [order] * n
    seeds = [(sampling.seed + i) % N_SEEDS for i in range(n)]
    return [
        replace(order, request=replace(wanted, id=uuid.uuid4().hex, sampling=replace(sampling, seed=seed))) for seed in seeds
    ]


def chat_request(body: ChatBody, settings: Settings) -> Request:
    """What a chat asks of the engine. Raises ApiError 400 for what cannot be honoured."""
    if body.top_logprobs and not body.logprobs:
        raise wrong("top_logprobs", "top_logprobs needs logprobs to be true.")
    tools = offered(body)
    messages, begun = body.messages, {}
    if body.continue_final_message:
        *messages, last = messages
        begun = begun_by(last, body)
    return engine_request(
        body,
        settings,
        messages=plain(messages),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        tools=[_told(tool) for tool in tools],
        think=thoughts(body, settings),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        shape=shape(body, tools),
        **begun,
    )


def begun_by(message: Message, body: ChatBody) -> dict[str, str]:
    """What is there of an answer that is to go on: fields of the engine's request."""
    said = message.plain()["content"] if message.role == "assistant" else ""
    if message.tool_calls or not (said or message.reasoning_content):
        raise wrong("continue_final_message", "The last message must be an assistant's, with text to go on from.")
    if body.response_format or body.grammar or body.tools:
        raise wrong("continue_final_message", "An answer that is to have a shape cannot go on from a text.")
    if len(body.messages) < 2:
        raise wrong("messages", "There is no question before the answer that is to go on.")
    return {"thought": message.reasoning_content or "", "said": said}


def completion_request(body: CompletionBody, prompt: str | list[int], settings: Settings) -> Request:
    """What one prompt of a plain completion asks of the engine."""
    return engine_request(
        body,
        settings,
        messages=[],
        prompt=prompt,
        max_tokens=16 if body.max_tokens is None else body.max_tokens,  # OpenAI's default
        logprobs=0 if body.logprobs is None and (body.best_of or 1) > (body.n or 1) else body.logprobs,
        shape=_grammar(body),
    )


def engine_request(body: Sampled, settings: Settings, *, shape: Shape | None, **fields: Any) -> Request:
    """What all kinds of answers have in common, and the fields of this one."""
    early_stop = settings.early_stop if body.early_stop is None else body.early_stop
    return Request(
        id=uuid.uuid4().hex,
        sampling=sampling(body, settings),
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        early_stop=early_stop and not shape,  # what has a shape is whole only at its end
        loop_stop=not settings.keep_loops if body.loop_stop is None else body.loop_stop,
        shape=shape,
        private=bool(body.private),
        **fields,
    )


def sampling(body: Sampled, settings: Settings) -> Sampling:
    """With all defaults filled in; what says nothing about a greedy answer stays at its default."""
    temperature = settings.temperature if body.temperature is None else body.temperature
    default = Sampling(
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repeat_penalty=1.0 if body.repeat_penalty is None else body.repeat_penalty,
        logit_bias=[[_token(token), bias] for token, bias in sorted((body.logit_bias or {}).items()) if bias],
    )
    if temperature < settings.greedy_below or temperature == 0:
        return default
    return replace(
        default,
        temperature=temperature,
        top_k=default.top_k if body.top_k is None else body.top_k,
        top_p=default.top_p if body.top_p is None else body.top_p,
        min_p=default.min_p if body.min_p is None else body.min_p,
        seed=secrets.randbelow(N_SEEDS) if body.seed is None else body.seed % N_SEEDS,
    )


def plain(messages: list[Message]) -> list[dict[str, Any]]:
    """As the engine wants them. Calls are numbered anew: their names say nothing, and would change the key."""
    names: dict[str, str] = {}
    told = [message.plain() for message in messages]
    for message in told:
        for call in message.get("tool_calls", []):
            call["id"] = names.setdefault(call["id"], f"call_{len(names)}")
        if "tool_call_id" in message:
            message["tool_call_id"] = names.setdefault(message["tool_call_id"], f"call_{len(names)}")
    return told


def thoughts(body: ChatBody, settings: Settings) -> int | None:
    """Tokens that a reasoning model may think; None: as many as it takes."""
    if body.chat_template_kwargs and not body.chat_template_kwargs.enable_thinking:
        return 0
    budget = BUDGETS.get(body.reasoning_effort) if body.reasoning_effort else None
    limits = [limit for limit in (budget, settings.think_budget) if limit is not None]
    return min(limits, default=None)


def offered(body: ChatBody) -> list[Tool]:
    """The tools that may be called. Raises ApiError 400 for names that are not there."""
    tools, choice = body.tools or [], body.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise wrong("tool_choice", "tool_choice needs tools.")
        return []
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise wrong("tools", "Two tools have the same name.")
    if choice == "none":
        return []
    wanted = None
    if isinstance(choice, Choice):
        wanted = {choice.function.name}
    elif isinstance(choice, AllowedTools):
        wanted = {one.function.name for one in choice.allowed_tools.tools}
    if wanted and not wanted <= set(names):
        raise wrong("tool_choice", f"tool_choice names a tool that is not there: {min(wanted - set(names))}.")
    return [tool for tool in tools if wanted is None or tool.function.name in wanted]


def shape(body: ChatBody, tools: list[Tool]) -> Shape | None:
    """What the answer must look like."""
    format = body.response_format if body.response_format and body.response_format.type != "text" else None
    if bool(format) + bool(body.grammar) + bool(tools) > 1:
        raise wrong(shaped_by(body), "Of response_format, grammar and tools, one at a time can shape an answer.")
    if tools:
        choice = body.tool_choice
        free = choice in (None, "auto") or (isinstance(choice, AllowedTools) and choice.allowed_tools.mode == "auto")
        many = body.parallel_tool_calls is not False and not isinstance(choice, Choice)
        calls = [_call(tool, i) for i, tool in enumerate(tools)]
        opening = CALL if free else f"{CALL}\n"
        return Shape({"anyOf": calls}, opening=opening, closing=f"\n{CALL_END}", lazy=free, many=many)
    if not format:
        return _grammar(body)
    if format.type == "json_object":
        return Shape({"type": "object", "additionalProperties": {}})
    if format.json_schema is None:
        raise wrong("response_format.json_schema", "response_format of type json_schema needs json_schema.")
    return Shape(_honoured(format.json_schema.schema_, "response_format.json_schema.schema"))


def shaped_by(body: ChatBody) -> str:
    """The field that says what the answer must look like."""
    return "grammar" if body.grammar else "tools" if body.tools else "response_format"


def _call(tool: Tool, i: int) -> dict[str, Any]:
    parameters = tool.function.parameters or {"type": "object", "properties": {}}
    honoured = _honoured(parameters, f"tools[{i}].function.parameters")
    if honoured.get("type") != "object":
        raise wrong(f"tools[{i}].function.parameters", "The parameters of a function must be of type object.")
    properties = {"name": {"const": tool.function.name}, "arguments": honoured}
    return {"type": "object", "properties": properties, "required": ["name", "arguments"], "additionalProperties": False}


def _told(tool: Tool) -> dict[str, Any]:
    function = tool.function
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or {"type": "object", "properties": {}},
    }


def _grammar(body: Sampled) -> Shape | None:
    if not body.grammar:
        return None
    try:
        schema.check_grammar(body.grammar)
    except schema.SchemaError as error:
        raise wrong("grammar", str(error)) from error
    return Shape(grammar=body.grammar)


def _honoured(wanted: Any, param: str) -> dict[str, Any]:
    try:
        return schema.honoured(wanted)
    except schema.SchemaError as error:
        raise wrong(param, str(error)) from error


def _token(number: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) < 10 and str(int(number)) == number):
        raise wrong("logit_bias", f"logit_bias has a key that is no token's number: {number[:20]!r}.")
    return int(number)
