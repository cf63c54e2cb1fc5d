"""The JSON that clients send, strictly checked.

Every field of OpenAI's API is either honoured, harmless (it cannot change the answer), or refused by name. What is not
in any of the three lists is refused as unknown: nothing is accepted and ignored.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from api.errors import ApiError, unsupported, wrong
from api.message import LOOSE, STRICT, Message

Metadata = Annotated[dict[str, str], Field(max_length=16)]
HARMLESS: dict[str, Any] = {
    "cache_prompt": bool,  # llama-server's: it is always done here
    "metadata": Metadata,
    "prompt_cache_key": str,
    "prompt_cache_options": dict[str, str],
    "prompt_cache_retention": str,
    "safety_identifier": str,
    "service_tier": str,
    "store": bool,
    "user": str,
}
# Not supported: only values that ask for nothing pass.
NEUTRAL: dict[str, list[Any]] = {
    "audio": [],
    "function_call": ["none"],
    "functions": [[]],
    "modalities": [["text"]],
    "conversation": [],
    "max_tool_calls": [],
    "moderation": [],
    "prediction": [],
    "previous_response_id": [],  # nothing is remembered from one request to the next
    "prompt": [],
    "suffix": [""],
    "verbosity": ["medium"],
    "web_search_options": [],
}
SHORT_BYTES = 8192  # a longer body is not worth remembering
MOST_CHOICES = 16
MOST_MESSAGES = 2000
MOST_PROMPTS = 64


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    raise PydanticCustomError("bool_type", "Input should be a valid boolean")  # a Literal alone takes 0 for False


No = Annotated[Literal[False], BeforeValidator(_boolean)]
Yes = Annotated[Literal[True], BeforeValidator(_boolean)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=2**20, fail_fast=True)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class StreamOptions(BaseModel):
    """Only together with `stream`."""

    model_config = STRICT
    include_usage: bool = False
    include_obfuscation: No = False


class JsonSchema(BaseModel):
    """What `response_format` of type json_schema holds."""

    model_config = STRICT
    name: str = Field(max_length=64)
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    description: str | None = None
    strict: bool | None = None


class Format(BaseModel):
    """`response_format`."""

    model_config = STRICT
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Function(BaseModel):
    """A function that the model may call."""

    model_config = STRICT
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """One of `tools`."""

    model_config = STRICT
    type: Literal["function"]
    function: Function


class Named(BaseModel):
    """The name of a function."""

    model_config = STRICT
    name: ToolName


class Choice(BaseModel):
    """`tool_choice` of one function."""

    model_config = STRICT
    type: Literal["function"]
    function: Named


class Allowed(BaseModel):
    """What `tool_choice` of type allowed_tools holds."""

    model_config = STRICT
    mode: Literal["auto", "required"]
    tools: list[Choice] = Field(min_length=1, max_length=128, fail_fast=True)


class AllowedTools(BaseModel):
    """`tool_choice` of some of the tools."""

    model_config = STRICT
    type: Literal["allowed_tools"]
    allowed_tools: Allowed


class TemplateOptions(BaseModel):
    """`chat_template_kwargs`, as far as templates agree on them."""

    model_config = STRICT
    enable_thinking: bool = True


class Sampled(BaseModel):
    """What chat and plain completions have in common. None is the same as absent."""

    model_config = LOOSE
    model: str | None = Field(None, max_length=512)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[str, Bias] | None = Field(None, max_length=1024)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4, fail_fast=True)] | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    grammar: str | None = Field(None, max_length=2**16)  # GBNF, as with llama-server
    return_progress: bool | None = None  # llama-server's, too
    early_stop: bool | None = None  # this and the next: Linnet's own; see engine.request.Request
    loop_stop: bool | None = None
    cache: bool | None = None  # Linnet's own, too; see api.control
    private: bool | None = None  # the same, and the prompt leaves nothing on disk either

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to tell its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: Format | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateOptions | None = None
    continue_final_message: bool | None = None  # as vLLM has it


class CompletionBody(Sampled):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
        | Annotated[Tokens, Field(min_length=1)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    )
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    logprobs: int | None = Field(None, ge=0, le=5)


class PrefillBody(BaseModel):
    """POST /api/prefill: the messages of a chat request that will probably follow."""

    model_config = LOOSE
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    model: str | None = Field(None, max_length=512)
    private: bool | None = None


class ModelBody(BaseModel):
    """Names a model: POST /models/load and /models/unload, POST and DELETE /models/download."""

    model_config = STRICT
    model: str = Field(min_length=1, max_length=512)


B = TypeVar("B", bound=BaseModel)


def read(kind: type[B], raw: bytes) -> B:
    """The checked body. Raises ApiError 400 naming the field."""
    return _read_again(kind, raw) if len(raw) <= SHORT_BYTES else _read(kind, raw)


def _read(kind: type[B], raw: bytes) -> B:
    try:
        body = kind.model_validate_json(raw)
    except ValidationError as error:
        raise _first_fault(error) from None
    for name, value in (body.model_extra or {}).items():
        if value is None:
            continue
        if name in HARMLESS:
            try:
                _harmless(name).validate_python(value)
            except ValidationError as error:
                raise wrong(name, f"Invalid value for {name}: {error.errors()[0]['msg']}.") from None
            continue
        if name not in NEUTRAL:
            raise ApiError(400, f"Unrecognized request argument: {name[:100]}.", param=name[:100])
        if not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL[name]):  # True == 1
            raise unsupported(name, f"{name} is not supported.")
    for i, message in enumerate(getattr(body, "messages", [])):
        message.check(f"messages[{i}]")
    return body


@functools.cache
def _harmless(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(HARMLESS[name], config=ConfigDict(strict=True))


_read_again = functools.lru_cache(128)(_read)  # a repeated request is repeated byte for byte


def _first_fault(error: ValidationError) -> ApiError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    fault = max(faults, key=lambda fault: len(fault["loc"]))  # of several ways to read a value, the one that went furthest
    param = ""
    for part in fault["loc"]:
        if isinstance(part, int):
            param += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int", "float", "bool") and part[0].islower() and "-" not in part:
            param += f".{part}" if param else part
        else:
            break  # pydantic's name of an alternative, which says nothing to a client
    if fault["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {fault['msg']}.")
    return wrong(param[:100] or None, f"Invalid value for {param or 'the body'}: {fault['msg']}.")
