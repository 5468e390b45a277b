"""The bodies of Ollama's API: the fields and options that are accepted. Others are ignored, as
Ollama does. Names may be capitalised, as Go programs write them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from myllm.api.ollama.tools import in_small_letters
from myllm.api.shared.bounded import Inputs, Messages, Name, Parts, Stop, Stops, Tokens
from myllm.api.shared.lenient import Lenient
from myllm.api.shared.request_fields import KeepAlive
from myllm.api.shared.sampling_fields import (
    FrequencyPenalty,
    MinP,
    Mirostat,
    MirostatEta,
    MirostatTau,
    PresencePenalty,
    RepeatPenalty,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)
from myllm.api.shared.tool_schemas import ToolDefinitions
from myllm.gateway.client import Client
from myllm.gateway.generation.sampling import UNBOUNDED
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.limits import WHOLE


def _listed(value: Any) -> Any:
    """Turn a text into a list of one."""
    return [value] if isinstance(value, str) else value


class _Go(Lenient):
    """An object whose names are read as Go does: in any case, unless the exact name is there."""

    @model_validator(mode="before")
    @classmethod
    def _in_small_letters(cls, given: Any) -> Any:
        if not isinstance(given, dict) or all(name in cls.model_fields for name in given):
            return given
        small = {name.lower(): value for name, value in given.items()}
        return small | given


class OllamaOptions(_Go):
    """How tokens are chosen, under Ollama's names."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None
    min_p: MinP = None
    typical_p: TypicalP = None
    num_predict: int | None = Field(
        None, ge=-WHOLE, le=WHOLE, description="Longest answer, in tokens; -1: no bound."
    )
    stop: Annotated[
        Stops | None, BeforeValidator(_listed, json_schema_input_type=Stop | Stops | None)
    ] = Field(None, description="The answer ends before any of these.")
    seed: int | None = Field(
        None,
        ge=-(2**63),
        lt=2**64,
        description="The same seed gives the same answer; -1: any.",
    )
    repeat_penalty: RepeatPenalty = None
    repeat_last_n: int | None = Field(
        None,
        ge=-1,
        le=2**20,
        description="How many of the last tokens the penalties look at; 0: none.",
    )
    presence_penalty: PresencePenalty = None
    frequency_penalty: FrequencyPenalty = None
    mirostat: Mirostat = None
    mirostat_tau: MirostatTau = None
    mirostat_eta: MirostatEta = None

    def given(self) -> dict[str, Any]:
        """Return the options that the request has set, under the native dialect's names."""
        given = self.model_dump(exclude_none=True)
        longest = given.pop("num_predict", None)
        if longest is not None:
            given["max_tokens"] = longest if longest > 0 else UNBOUNDED
        if "seed" in given:
            given["seed"] = given["seed"] % 2**32 if given["seed"] >= 0 else -1
        return given


class NamedRequest(_Go):
    """A request that names a model. Older clients call the field `name`."""

    model: Name = Field(
        min_length=1,
        validation_alias=AliasChoices("model", "name"),
        description='A model\'s name or alias, with or without ":latest".',
    )


class _Queued(NamedRequest):
    """The fields of all requests that wait for an engine."""

    options: OllamaOptions | None = Field(
        None,
        description="How tokens are chosen; the model's own defaults, otherwise.",
    )
    keep_alive: KeepAlive | None = Field(
        None, description='How long the model stays: seconds or "5m"; 0: unload it, -1: forever.'
    )

    def info(self, client: Client) -> RequestInfo:
        """Who sent this request."""
        return RequestInfo(client, keep_alive_s=self.keep_alive)


class _Generating(_Queued):
    """The fields that generate and chat share."""

    stream: bool | None = Field(True, description="A line for each piece, or one JSON answer.")
    format: Literal["json", ""] | dict[str, Any] | None = Field(
        None, description='"json" or a JSON schema that the answer must match.'
    )
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        None, description="Whether the model thinks before it answers, if it can."
    )

    def sampling(self) -> dict[str, Any]:
        """Return the sampling options under the native dialect's names."""
        return self.options.given() if self.options else {}

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema for the engine; "json" stands for any object."""
        return {"type": "object"} if self.format == "json" else self.format or None

    def fields(self) -> dict[str, Any]:
        """Return the engine's other fields."""
        fields: dict[str, Any] = {}
        if (schema := self.json_schema()) is not None:
            fields["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
        if self.think is not None:
            fields["chat_template_kwargs"] = {"enable_thinking": self.think is not False}
            if isinstance(self.think, str):
                fields["reasoning_effort"] = "high" if self.think == "max" else self.think
        return fields


class OllamaGenerateRequest(_Generating):
    """Answer a prompt. Without one, load the model, or unload it if `keep_alive` is 0."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "demo", "prompt": "Who are you?", "stream": False},
        }
    )
    prompt: str | None = Field("", description="The text to answer.")
    system: str | None = Field(None, description="Instructions in front of it.")
    images: Parts[str] | None = Field(None, description="In base64.")
    raw: bool | None = Field(
        False, description="Whether to complete the prompt without the model's chat template."
    )
    suffix: str | None = Field(
        None, description="The text after the answer, for models that fill in the middle."
    )
    template: str | None = Field(None, description="Refused: the model has its own.")
    context: Tokens | None = Field(None, description="Refused: use /chat.")


class OllamaCalledFunction(_Go):
    """The name of the called function, and its arguments."""

    name: Name | None = Field(None, description="The function's name.")
    arguments: Any = Field(None, description="An object, or its JSON.")


class OllamaCall(_Go):
    """A tool call."""

    id: Name | None = Field(None, description="Names the call.")
    function: OllamaCalledFunction | None = Field(
        None, description="The function and its arguments."
    )


class OllamaMessage(_Go):
    """One message. The result of a tool has the tool's name, or the id of the call."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Who speaks; tool, or function: the result of a call."
    )
    content: str = Field("", description="The text.")
    thinking: str | None = Field(None, description="The assistant's thinking.")
    images: Parts[str] | None = Field(None, description="In base64.")
    tool_calls: Parts[OllamaCall] | None = Field(None, description="The assistant's tool calls.")
    tool_name: Name | None = Field(
        None,
        validation_alias=AliasChoices("tool_name", "name"),
        description="The tool whose result this is.",
    )
    tool_call_id: Name | None = Field(None, description="The id of the call whose result this is.")


class OllamaChatRequest(_Generating):
    """Answer a conversation. Without one, load the model, or unload it if `keep_alive` is 0."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "demo",
                "messages": [{"role": "user", "content": "Who are you?"}],
                "stream": False,
            }
        }
    )
    messages: Messages[OllamaMessage] | None = Field(
        None, description="The conversation, oldest message first."
    )
    tools: Annotated[ToolDefinitions | None, BeforeValidator(in_small_letters)] = Field(
        None, description="The functions that the model may call."
    )


class EmbedRequest(_Queued):
    """Turn texts into vectors."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "demo", "input": "Hello"}})
    input: Annotated[
        Inputs[str], BeforeValidator(_listed, json_schema_input_type=str | Inputs[str])
    ] = Field(description="One text, or several.")
    truncate: bool | None = Field(True, description="Cut texts that are too long; or a 400.")
    dimensions: int | None = Field(
        None, ge=1, le=2**20, description="Length of the vectors, if the model can."
    )


class OldEmbeddingsRequest(_Queued):
    """Turn one text into a vector."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "demo", "prompt": "Hello"}})
    prompt: str | None = Field("", description="The text.")


class PullRequest(NamedRequest):
    """Download a model."""

    stream: bool | None = Field(True, description="A line for each step, or one JSON answer.")


class CopyRequest(_Go):
    """Copy a model."""

    source: Name = Field(min_length=1, description="The model's name or alias.")
    destination: Name = Field(min_length=1, description="A name that no model has yet.")
