"""The JSON of POST /v1/chat/completions, strictly checked.

Every field of OpenAI's API is either honoured, harmless (it cannot change the answer), or refused by name. What is not
in any of the three lists is refused as unknown: nothing is accepted and ignored.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.errors import ApiError

HARMLESS = {
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
# Not supported yet: only values that ask for nothing pass.
NEUTRAL: dict[str, list[Any]] = {
    "audio": [],
    "function_call": ["none"],
    "functions": [[]],
    "grammar": [""],
    "logit_bias": [{}],
    "logprobs": [False],
    "modalities": [["text"]],
    "moderation": [],
    "n": [1],
    "parallel_tool_calls": [True, False],  # says nothing without tools
    "prediction": [],
    "reasoning_effort": [],
    "response_format": [{"type": "text"}],
    "tool_choice": ["none"],
    "tools": [[]],
    "top_logprobs": [],
    "verbosity": [],
    "web_search_options": [],
}
ANSWER_LISTS = {"annotations", "tool_calls"}  # of a message: clients send answers back with their empty fields
SHORT_BYTES = 8192  # a longer body is not worth remembering
STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

Stop = Annotated[str, Field(min_length=1, max_length=256)]


class TextPart(BaseModel):
    """One part of a message that is given as a list."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn. `developer` is the newer word for `system`."""

    model_config = STRICT
    role: Literal["developer", "system", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    reasoning_content: str | None = None  # earlier reasoning is not part of a prompt; clients send it back all the same

    def plain(self) -> dict[str, str]:
        """As the engine wants it: a role that templates know, and one text."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        message = {"role": "system" if self.role == "developer" else self.role, "content": text}
        return message | {"name": self.name} if self.name else message  # some templates write it


class StreamOptions(BaseModel):
    """Only together with `stream`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatBody(BaseModel):
    """The fields that are honoured. None is the same as absent."""

    model_config = STRICT
    messages: list[Message] = Field(min_length=1, max_length=2000)
    model: str | None = Field(None, max_length=512)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    early_stop: bool | None = None  # this and the next: Linnet's own; see engine.request.Request
    loop_stop: bool | None = None
    cache: bool | None = None  # Linnet's own, too; see api.control


class PrefillBody(BaseModel):
    """POST /api/prefill: the messages of a chat request that will probably follow."""

    model_config = STRICT
    messages: list[Message] = Field(min_length=1, max_length=2000)
    model: str | None = Field(None, max_length=512)


B = TypeVar("B", ChatBody, PrefillBody)


def _read(kind: type[B], raw: bytes) -> B:
    try:
        body = kind.model_validate_json(raw)
    except ValidationError as error:
        raise _first_fault(error) from None
    _refuse_extra(body.model_extra or {})
    for i, message in enumerate(body.messages):
        _refuse_extra(message.model_extra or {}, f"messages[{i}].")
    return body


def parse_prefill(raw: bytes) -> PrefillBody:
    """The checked body. Raises ApiError 400 naming the field."""
    return _read(PrefillBody, raw)


def parse(raw: bytes) -> ChatBody:
    """The checked body. Raises ApiError 400 naming the field."""
    return _parse_again(raw) if len(raw) <= SHORT_BYTES else _parse(raw)


def _parse(raw: bytes) -> ChatBody:
    body = _read(ChatBody, raw)
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options is only allowed when stream is true.", param="stream_options")
    if body.stream_options and body.stream_options.include_obfuscation:
        raise ApiError(400, "include_obfuscation is not supported.", code="unsupported_parameter", param="stream_options")
    return body


_parse_again = functools.lru_cache(128)(_parse)  # a repeated request is repeated byte for byte


def _refuse_extra(extra: dict[str, Any], where: str = "") -> None:
    for name, value in extra.items():
        harmless = name in ANSWER_LISTS and value == [] if where else name in HARMLESS
        if value is None or harmless:
            continue
        if name not in NEUTRAL:
            raise ApiError(400, f"Unrecognized request argument: {where}{name[:100]}.", param=where + name[:100])
        if not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL[name]):  # True == 1
            raise ApiError(400, f"{where}{name} is not supported yet.", code="unsupported_parameter", param=where + name)


def _first_fault(error: ValidationError) -> ApiError:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ""
    for part in fault["loc"]:
        if isinstance(part, int):
            param += f"[{part}]"
        elif part in ChatBody.model_fields or part in Message.model_fields or part in ("type", "text"):
            param += f".{part}" if param else part
        else:
            break  # pydantic's name of an alternative, which says nothing to a client
    if fault["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {fault['msg']}.")
    return ApiError(
        400, f"Invalid value for {param or 'the body'}: {fault['msg']}.", code="invalid_value", param=param or None
    )
