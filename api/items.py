"""The body of POST /v1/responses, and the chat that it asks for in other words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from api.body import (
    MOST_MESSAGES,
    Allowed,
    AllowedTools,
    ChatBody,
    Effort,
    Format,
    Function,
    JsonSchema,
    Metadata,
    Named,
    No,
    Tool,
    ToolName,
)
from api.body import Choice as ToolChoice
from api.errors import ApiError, wrong
from api.message import LOOSE, PARTS, STRICT, Call, Called, Message

TOLERANT = ConfigDict(strict=True, extra="ignore")  # parts come back as they were given, with much that says nothing
SAYS_NOTHING = {"id", "type", "status", "phase", "created_by", "namespace"}  # in an item that comes back


class Part(BaseModel):
    """Text in a message."""

    model_config = TOLERANT
    type: Literal["input_text", "output_text", "refusal"]
    text: str = ""
    refusal: str = ""


class BlindPart(BaseModel):
    """What cannot be read here."""

    model_config = TOLERANT
    type: Literal["input_image", "input_audio", "input_file"]


class InItem(BaseModel):
    """What all items have in common."""

    model_config = LOOSE

    def check(self, where: str) -> None:
        """Raises ApiError 400 for what would be lost."""
        for name, value in (self.model_extra or {}).items():
            if value not in (None, [], "") and name not in SAYS_NOTHING:
                param = f"{where}.{name[:100]}"
                raise ApiError(400, f"Unrecognized request argument: {param}.", param=param)


class InMessage(InItem):
    """A message."""

    role: Literal["user", "system", "developer", "assistant"]
    content: str | Annotated[list[Annotated[Part | BlindPart, Field(discriminator="type")]], PARTS]


class InCall(InItem):
    """A call that the model made earlier."""

    call_id: str
    name: ToolName
    arguments: str


class InOutput(InItem):
    """What a called function returned."""

    call_id: str
    output: str | Annotated[list[Part], PARTS]


class InReasoning(BaseModel):
    """Earlier reasoning is not part of a prompt; clients send it back all the same."""

    model_config = TOLERANT


def _kind(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    return str(kind or "message")


Item = Annotated[
    Annotated[InMessage, Tag("message")]
    | Annotated[InCall, Tag("function_call")]
    | Annotated[InOutput, Tag("function_call_output")]
    | Annotated[InReasoning, Tag("reasoning")],
    Discriminator(_kind),
]


class ResponseTool(BaseModel):
    """A function that the model may call."""

    model_config = STRICT
    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(BaseModel):
    """`tool_choice` of one function."""

    model_config = STRICT
    type: Literal["function"]
    name: ToolName


class AllowedResponseTools(BaseModel):
    """`tool_choice` of some of the functions."""

    model_config = STRICT
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=128, fail_fast=True)


class TextFormat(BaseModel):
    """What the text must look like."""

    model_config = STRICT
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, max_length=64)
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = None

    def told(self) -> dict[str, Any]:
        """As the response repeats it."""
        return self.model_dump(by_alias=True, exclude_none=True)


class TextOptions(BaseModel):
    """`text`."""

    model_config = STRICT
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(BaseModel):
    """`reasoning`."""

    model_config = STRICT
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None  # there is none: the thoughts themselves are told


class ResponsesBody(BaseModel):
    """All that is honoured. None is the same as absent."""

    model_config = LOOSE
    # The instructions are one message more.
    input: str | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES - 1, fail_fast=True)]
    model: str | None = Field(None, max_length=512)
    instructions: str | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_output_tokens: int | None = Field(None, ge=1)
    tools: Annotated[list[ResponseTool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedResponseTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    metadata: Metadata | None = None
    cache: bool | None = None  # Linnet's own; see api.control
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    truncation: Literal["disabled"] | None = None
    background: No | None = None
    # Of what can be included here, there is none.
    include: Annotated[list[Literal["reasoning.encrypted_content"]], Field(max_length=10, fail_fast=True)] | None = None

    def told_tool_choice(self) -> Any:
        """As the response repeats it."""
        choice = self.tool_choice
        return choice.model_dump() if isinstance(choice, BaseModel) else choice or "auto"


def chat_of(body: ResponsesBody) -> ChatBody:
    """The same request as a chat. Raises ApiError 400."""
    items = [InMessage(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    messages = [_message(role="system", content=body.instructions)] if body.instructions else []
    for i, item in enumerate(items):
        _add(messages, item, f"input[{i}]")
    if not messages:
        raise wrong("input", "input has no message in it.")
    chat = {
        "messages": messages,
        "stream": body.stream,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": body.max_output_tokens,
        "tools": [Tool(type="function", function=_function(tool)) for tool in body.tools or []],
        "tool_choice": _choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _format(body.text.format) if body.text and body.text.format else None,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "cache": body.cache,
    }
    return ChatBody.model_validate(chat)


def _message(**fields: Any) -> Message:
    return Message.model_validate(fields)


def _add(messages: list[Message], item: Any, where: str) -> None:
    if isinstance(item, InItem):
        item.check(where)
    match item:
        case InMessage():
            message = _message(role=item.role, content=_content(item.content))
            message.check(where)
            messages.append(message)
        case InCall():
            call = Call(id=item.call_id, function=Called(name=item.name, arguments=item.arguments))
            if messages and messages[-1].role == "assistant":  # what was said and what was called are one turn
                messages[-1].tool_calls = [*(messages[-1].tool_calls or []), call]
            else:
                messages.append(_message(role="assistant", tool_calls=[call]))
        case InOutput():
            messages.append(_message(role="tool", tool_call_id=item.call_id, content=_content(item.output)))


def _content(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Part | BlindPart) -> dict[str, str]:
    if isinstance(part, BlindPart):
        return {"type": {"input_image": "image_url", "input_file": "file"}.get(part.type, part.type)}
    return {"type": "text", "text": part.text or part.refusal}


def _function(tool: ResponseTool) -> Function:
    return Function(name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict)


def _choice(body: ResponsesBody) -> Any:
    match body.tool_choice:
        case NamedTool(name=name):
            return _named(name)
        case AllowedResponseTools(mode=mode, tools=tools):
            return AllowedTools(
                type="allowed_tools", allowed_tools=Allowed(mode=mode, tools=[_named(t.name) for t in tools])
            )
    return body.tool_choice


def _named(name: str) -> ToolChoice:
    return ToolChoice(type="function", function=Named(name=name))


def _format(format: TextFormat) -> Format:
    if format.type != "json_schema":
        return Format(type=format.type)
    return Format(type="json_schema", json_schema=JsonSchema(name=format.name or "", schema=format.schema_ or {}))
