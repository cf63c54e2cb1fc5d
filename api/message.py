"""One turn of a chat as clients send it, and as the engine wants it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.errors import ApiError, unsupported, wrong

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
LOOSE = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)  # what is more in it is looked at by hand
PARTS = Field(max_length=1000, fail_fast=True)  # of one message
EMPTY_LISTS = {"annotations"}  # clients send answers back with their empty fields
BLIND = {
    "image_url": "This model has no eyes: images cannot be sent to it.",
    "input_audio": "This model has no ears: sound cannot be sent to it.",
    "file": "Files cannot be sent to this model; send their text.",
}


class TextPart(BaseModel):
    """One part of a message that is given as a list."""

    model_config = STRICT
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None  # where a cache is to look; ours looks everywhere


class RefusalPart(BaseModel):
    """What a model said when it would not answer."""

    model_config = STRICT
    type: Literal["refusal"]
    refusal: str


class OtherPart(BaseModel):
    """What cannot be read here, and is refused with a better sentence than that its type is wrong."""

    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["image_url", "input_audio", "file"]


class Called(BaseModel):
    """The function of a call, and its arguments as JSON text."""

    model_config = STRICT
    name: str = Field(max_length=64)
    arguments: str


class Call(BaseModel):
    """A call that the model made earlier."""

    model_config = ConfigDict(strict=True, extra="ignore")  # `index`, as a stream's deltas have it
    id: str
    type: Literal["function"] = "function"
    function: Called


class Message(BaseModel):
    """One turn. `developer` is the newer word for `system`."""

    model_config = LOOSE
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: (
        str | Annotated[list[Annotated[TextPart | RefusalPart | OtherPart, Field(discriminator="type")]], PARTS] | None
    ) = None
    name: str | None = None
    tool_calls: Annotated[list[Call], Field(max_length=128, fail_fast=True)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # earlier reasoning is not part of a prompt; clients send it back all the same

    def check(self, where: str) -> None:
        """Raises ApiError 400 for what its fields do not say one by one."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and not (name in EMPTY_LISTS and value == []):
                param = f"{where}.{name[:100]}"
                raise ApiError(400, f"Unrecognized request argument: {param}.", param=param)
        for i, part in enumerate(self.content if isinstance(self.content, list) else []):
            if isinstance(part, OtherPart):
                raise unsupported(f"{where}.content[{i}]", BLIND[part.type])
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.refusal)):
            raise _missing(f"{where}.content")
        if self.tool_calls and self.role != "assistant":
            raise wrong(f"{where}.tool_calls", "Only the assistant calls functions.")
        if self.role == "tool" and not self.tool_call_id:
            raise _missing(f"{where}.tool_call_id")

    def plain(self) -> dict[str, Any]:
        """As the engine wants it: a role that templates know, one text, and the calls."""
        parts = [self.content or self.refusal or ""] if not isinstance(self.content, list) else map(_text, self.content)
        message: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": "".join(parts)}
        if self.name:
            message["name"] = self.name  # some templates write it
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.role == "tool":
            message["tool_call_id"] = self.tool_call_id
        return message


def _text(part: TextPart | RefusalPart | OtherPart) -> str:
    return part.text if isinstance(part, TextPart) else part.refusal if isinstance(part, RefusalPart) else ""


def _missing(param: str) -> ApiError:
    return ApiError(400, f"{param} is missing.", code="missing_required_parameter", param=param)
