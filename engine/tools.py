"""Functions that a model may call, told to it in words where its chat template has none for them.

One way of calling is used with all models, the one most small models were trained on:

    <tool_call>
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>

and what the function returned comes back as <tool_response>. Knows nothing of models: messages go in, messages come out.
"""

from __future__ import annotations

import json
from typing import Any

CALL, CALL_END = "<tool_call>", "</tool_call>"
RESPONSE, RESPONSE_END = "<tool_response>", "</tool_response>"
INTRODUCTION = """You may call these functions:
{tools}

To call one, write nothing but
{call}
{{"name": NAME, "arguments": ARGUMENTS}}
{call_end}
with the function's name and a JSON object of its arguments. What it returns comes in {response}{response_end}."""

Messages = list[dict[str, Any]]


def known_to(template: str) -> bool:
    """Whether a chat template tells of tools in just this way itself."""
    return CALL in template and "tools" in template


def as_objects(messages: Messages) -> Messages:
    """With the arguments of calls as templates want them: objects, not JSON text."""
    return [m | {"tool_calls": [_as_object(c) for c in m["tool_calls"]]} if m.get("tool_calls") else m for m in messages]


def in_words(messages: Messages, tools: list[dict[str, Any]]) -> Messages:
    """The same conversation for a template that knows nothing of tools."""
    told: Messages = []
    for message in messages:
        if message["role"] == "tool":
            text = f"{RESPONSE}\n{message['content']}\n{RESPONSE_END}"
            if told and told[-1].get("answers"):  # one turn of the user's, however many were called
                told[-1]["content"] += f"\n{text}"
            else:
                told.append({"role": "user", "content": text, "answers": True})
        elif told and told[-1].pop("answers", False) and message["role"] == "user":
            told[-1]["content"] += f"\n{message['content']}"
        else:
            calls = [f"{CALL}\n{_written(call)}\n{CALL_END}" for call in message.get("tool_calls", [])]
            content = "\n".join([message["content"], *calls] if message["content"] else calls or [""])
            told.append({k: v for k, v in message.items() if k != "tool_calls"} | {"content": content})
    for message in told:
        message.pop("answers", None)
    if not tools:
        return told
    introduction = INTRODUCTION.format(
        tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools),
        call=CALL,
        call_end=CALL_END,
        response=RESPONSE,
        response_end=RESPONSE_END,
    )
    if told and told[0]["role"] == "system":
        return [told[0] | {"content": f"{told[0]['content']}\n\n{introduction}"}, *told[1:]]
    return [{"role": "system", "content": introduction}, *told]


def _as_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return call | {"function": function | {"arguments": _parsed(function["arguments"])}}


def _written(call: dict[str, Any]) -> str:
    function = call["function"]
    return json.dumps({"name": function["name"], "arguments": _parsed(function["arguments"])}, ensure_ascii=False)


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:  # a call that was cut off, as it may be in a conversation
        return arguments
