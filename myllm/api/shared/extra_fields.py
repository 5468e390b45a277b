"""Fields of completions that are not OpenAI's, or that no local model can follow.

Clients of other servers write some of our fields in other ways, which are translated. Without some
fields the answer would be a different one, so they are refused. All others are left out and named,
unless they are hints that change no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.limits import NAME_CHARS, WHOLE

# Accounts, caches and storage of OpenAI's; hints that make an answer come sooner; a voice.
_HARMLESS: Final = frozenset(
    {
        *("user", "safety_identifier", "metadata", "store", "service_tier", "prediction"),
        *(
            "audio",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "cache_prompt",
        ),
    }
)
# They constrain the answer in forms that the engine does not know.
_REFUSED: Final = {
    "guided_regex": "send a grammar in GBNF as `grammar`",
    "guided_grammar": "send a grammar in GBNF as `grammar`",
    "guided_choice": "send a `response_format` with a JSON schema that has an enum",
    "structural_tag": "send a grammar in GBNF as `grammar`",
    "regex": "send a grammar in GBNF as `grammar`",
    "ebnf": "send a grammar in GBNF as `grammar`",
    "use_beam_search": "leave it out",
}


def engine_fields(extra: Mapping[str, Any], ignored: Ignored) -> dict[str, Any]:
    """Return the engine's fields for `extra`, in which null means absent.

    `ignored` collects the names of those that are left out. Raises InvalidRequest for a field
    without which the answer would be a different one.
    """
    fields: dict[str, Any] = {}
    for name, value in extra.items():
        if value is None or name in _HARMLESS:
            continue
        if (read := _READERS.get(name)) is not None:
            fields |= read(name, value)
        elif name not in _REFUSED:
            ignored.add(name)
        elif value is not False:
            raise InvalidRequest(f"{name} is not supported: {_REFUSED[name]}")
    return fields


def _modalities(name: str, value: Any) -> dict[str, Any]:
    if value not in ("text", ["text"]):
        raise InvalidRequest('modalities must be ["text"]: local models answer with text alone')
    return {}


def _schema(name: str, value: Any) -> dict[str, Any]:
    """vLLM's name for a JSON schema."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be a JSON schema")
    return {"json_schema": value}


def _structured(name: str, value: Any) -> dict[str, Any]:
    """vLLM's object with one of several constraints."""
    schema = value.get("json") if isinstance(value, dict) else None
    if schema is None:
        raise InvalidRequest(f"{name} is supported with `json` alone, a JSON schema")
    return _schema(f"{name}.json", schema)


def _format(name: str, value: Any) -> dict[str, Any]:
    """The format of an answer to a prompt; the engine takes it in chats alone."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": value.get("schema") or {"type": "object"}}
    if kind == "json_schema" and isinstance(wrapper := value.get("json_schema"), dict):
        return _schema(f"{name}.json_schema.schema", wrapper.get("schema"))
    raise InvalidRequest(f"{name} must be of type text, json_object, or json_schema with a schema")


def _penalty(name: str, value: Any) -> dict[str, Any]:
    """vLLM's name for `repeat_penalty`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InvalidRequest(f"{name} must be a number, 0 or more")
    return {"repeat_penalty": value}


def _reasoning(name: str, value: Any) -> dict[str, Any]:
    """OpenRouter's `reasoning` and Anthropic's `thinking`: objects, or some clients' flags."""
    if isinstance(value, str):
        return {"reasoning_effort": value[:NAME_CHARS]}
    if isinstance(value, bool):
        return {} if value else {"reasoning_effort": "none"}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object")
    if value.get("type") == "disabled" or value.get("enabled") is False:
        return {"reasoning_effort": "none"}
    fields: dict[str, Any] = {}
    effort, budget = value.get("effort"), value.get("max_tokens", value.get("budget_tokens"))
    if isinstance(effort, str):
        fields["reasoning_effort"] = effort[:NAME_CHARS]
    return fields if budget is None else fields | _budget(f"{name}'s budget", budget)


def _budget(name: str, value: Any) -> dict[str, Any]:
    """Qwen's and Anthropic's names for the most tokens to think."""
    if type(value) is not int or not -1 <= value <= WHOLE:
        raise InvalidRequest(f"{name} must be a whole number, -1 or more")
    return {"thinking_budget_tokens": value}


def _enable_thinking(name: str, value: Any) -> dict[str, Any]:
    """Qwen's switch, which other servers take outside of `chat_template_kwargs`, too."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false")
    return {"chat_template_kwargs": {name: value}}


_READERS: Final = {
    "modalities": _modalities,
    "guided_json": _schema,
    "structured_outputs": _structured,
    "response_format": _format,
    "repetition_penalty": _penalty,
    "reasoning": _reasoning,
    "thinking": _reasoning,
    "thinking_budget": _budget,
    "reasoning_budget_tokens": _budget,
    "enable_thinking": _enable_thinking,
}
