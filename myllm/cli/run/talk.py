"""One conversation with a model: requests to the server, and its answers.

The server keeps the conversation; this module prints nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from myllm.cli.client import answer_of, checked, error_of
from myllm.errors import InvalidRequest, MyLLMError, NotFound

if TYPE_CHECKING:
    import httpx

Event = dict[str, Any]
"""An event of /api/chat: `token`, `thinking` or `tool_calls`, or the last one, with `done` true;
or `phase`, what the server is waiting for."""


@dataclass
class Choices:
    """What applies to every question; None for `thinking` leaves it to the model."""

    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    thinking: bool | None = None
    verbose: bool = False


class Talk:
    """A conversation with one model. Without a `session_id` nothing of it is stored."""

    def __init__(
        self, server: httpx.Client, model: str, choices: Choices, session_id: str | None
    ) -> None:
        self.model = model
        self.choices = choices
        self.session_id = session_id
        self._server = server
        self._last_question: str | None = None
        self._has_begun = False  # the answer to it
        self.was_answered = False
        """Whether this conversation has received an answer, or a part of one, in this run."""

    def start_anew(self) -> None:
        """Continue in a new conversation; the old one stays stored."""
        self.session_id, self._last_question = str(uuid.uuid4()), None
        self.was_answered = False

    def ask(self, text: str) -> Iterator[Event]:
        """The answer to a new question as it comes. Closing the iterator stops the generation.

        Raises the exception for an error that the server reports.
        """
        self._last_question, self._has_begun = text, False
        history = "full" if self.session_id is None else "append"
        return self._stream([{"role": "user", "content": text}], history)

    def ask_again(self) -> Iterator[Event]:
        """Another answer to the last question, which replaces the first one once it is complete."""
        messages = self.messages()
        at = _last_turn(messages)
        if self._has_no_answer(messages):
            assert self._last_question is not None
            return self.ask(self._last_question)
        if at is None:
            raise InvalidRequest("there is no question to answer again")
        return self._stream([_wire(each) for each in messages[: at + 1]], "full")

    def take_back(self) -> str:
        """Take the last turn out of the conversation; returns its question."""
        messages = self.messages()
        at = _last_turn(messages)
        if self._has_no_answer(messages):
            question, self._last_question = self._last_question, None
            return str(question)
        if at is None:
            raise InvalidRequest("there is no turn to take back")
        self._last_question = None
        answer_of(self._server.delete(f"{self._path()}/messages/{messages[at]['id']}"))
        return str(messages[at]["content"])

    def whole(self, text: str) -> Any:
        """The answer to `text` in one piece, as the API gives it."""
        from myllm.cli.http_client import WHOLE_S

        history = "full" if self.session_id is None else "append"
        body = self._body([{"role": "user", "content": text}], history) | {"stream": False}
        return answer_of(self._server.post("/api/chat", json=body, timeout=WHOLE_S))

    def messages(self) -> list[dict[str, Any]]:
        """The messages so far, without superseded ones, as the API lists them."""
        try:
            session = answer_of(self._server.get(self._path()))
        except NotFound:
            return []
        return [each for each in session["messages"] if not each["superseded"]]

    def exported(self, form: str) -> str:
        """The conversation as a file: `json` or `markdown`."""
        answer = self._server.get(f"{self._path()}/export", params={"format": form})
        return checked(answer).content.decode()

    def about_model(self) -> dict[str, Any]:
        """What the server knows about the model."""
        from urllib.parse import quote

        about: dict[str, Any] = answer_of(
            self._server.get(f"/api/models/{quote(self.model, safe='')}")
        )
        return about

    def _has_no_answer(self, messages: list[dict[str, Any]]) -> bool:
        """Whether the last question failed or was stopped, and so was not stored."""
        if self._last_question is None:
            return False
        at = _last_turn(messages)
        stored = None if at is None else messages[at]["content"]
        return not self._has_begun or self._last_question != stored

    def _path(self) -> str:
        return f"/api/sessions/{self.session_id}"

    def _stream(self, messages: list[dict[str, Any]], history: str) -> Iterator[Event]:
        body = self._body(messages, history)
        with self._server.stream("POST", "/api/chat", json=body) as answer:
            if not answer.is_success:
                raise error_of(answer.status_code, answer.read().decode())
            for line in answer.iter_lines():
                if line.startswith(": "):
                    yield {"phase": line[2:], "done": False}
                elif line.startswith("data: "):
                    event: Event = json.loads(line[6:])
                    if "error" in event:
                        raise MyLLMError(event["error"])
                    self._has_begun = self.was_answered = True
                    yield event

    def _body(self, messages: list[dict[str, Any]], history: str) -> dict[str, Any]:
        choices = self.choices
        if choices.system is not None:
            own = {"role": "system", "content": choices.system}
            messages = [own, *(each for each in messages if each["role"] != "system")]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "history": history,
            "options": choices.options,
        }
        if choices.thinking is not None:
            body["thinking"] = choices.thinking
        if self.session_id is None:
            return body | {"store": False}
        return body | {"session_id": self.session_id}


def latest(server: httpx.Client, model: str) -> str:
    """The id of the model's most recent session. Raises InvalidRequest if there is none."""
    answer = server.get("/api/sessions", params={"model": model, "limit": 1})
    found = answer_of(answer)["sessions"]
    if not found:
        raise InvalidRequest(f"there is no conversation with '{model}' to continue")
    return str(found[0]["id"])


def _last_turn(messages: list[dict[str, Any]]) -> int | None:
    """The index of the last question."""
    places = [index for index, each in enumerate(messages) if each["role"] == "user"]
    return places[-1] if places else None


def _wire(message: dict[str, Any]) -> dict[str, Any]:
    """A listed message in the form of a request."""
    names = ("tool_calls", "tool_call_id", "thinking")
    more = {name: message[name] for name in names if name in message}
    return {"role": message["role"], "content": message.get("parts") or message["content"], **more}
