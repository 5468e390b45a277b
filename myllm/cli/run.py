"""`myllm run`: one question, or a conversation."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from myllm.cli.common import console, error, print_json
from myllm.cli.completion import complete_model, complete_session
from myllm.cli.sessions import latest

if TYPE_CHECKING:
    import httpx

HELP = """\
/clear  begin a new conversation
/exit   leave (so does Ctrl+D, or Ctrl+C twice)
/help   this text
Ctrl+C stops an answer."""


def run(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name, as `myllm list` shows it.", autocompletion=complete_model
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(help="One question; without it a conversation begins.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2; higher: more random.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling threshold.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.")] = None,
    session: Annotated[
        str | None,
        typer.Option(
            help="Go on with this conversation, or begin it.", autocompletion=complete_session
        ),
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the last one with this model.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole answer as JSON (with a prompt).")
    ] = False,
) -> None:
    """Talk to a model, through the running server or one just for this command."""
    from myllm.cli.temporary import server_for_command

    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt is not None and not prompt:
        raise typer.BadParameter("the prompt is empty")
    if as_json and prompt is None:
        raise typer.BadParameter("--json needs a prompt")
    if session is not None and go_on:
        raise typer.BadParameter("give --session or --continue, not both")
    options = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with server_for_command(ctx.obj.settings()) as server:
        if go_on:
            session = latest(server, model)
        talk = Conversation(server, model, system, given, session)
        if prompt is None:
            talk.converse()
            talk.say_how_to_go_on()
        elif as_json:
            print_json(talk.whole(prompt))
        else:
            talk.say(prompt)


class Conversation:
    """A session with one model."""

    def __init__(
        self,
        server: httpx.Client,
        model: str,
        system: str | None,
        options: dict[str, Any],
        session_id: str | None = None,
    ) -> None:
        self._server = server
        self._model = model
        self._system = system
        self._options = options
        self._answered = False
        # Its id is ours, so that it is known when an answer is stopped.
        self._session_id = session_id or str(uuid.uuid4())

    def converse(self) -> None:
        """Read questions and print answers until the user leaves."""
        import readline  # noqa: F401 - gives `input` its line editing and history

        from myllm.errors import MyLLMError

        print(f"Talking to {self._model}. /help shows the commands.")
        interrupted = False
        while True:
            try:
                line = input(">>> ").strip()
                interrupted = False
                if line in ("/exit", "/quit", "/bye"):
                    return
                if line:
                    self._do(line)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                if interrupted:
                    raise
                interrupted = True
                print("(Ctrl+C again or /exit leaves)")
            except MyLLMError as failure:
                error(failure.detail)

    def say_how_to_go_on(self) -> None:
        """For people; a script knows what it asked for."""
        if self._answered and sys.stdout.isatty():
            print(f"Go on with: myllm run {self._model} --session {self._session_id}")

    def _do(self, line: str) -> None:
        if line == "/clear":
            self._session_id, self._answered = str(uuid.uuid4()), False
            print("A new conversation begins.")
        elif line == "/help":
            print(HELP)
        elif line.startswith("/"):
            print(f"Unknown command {line}. /help shows the commands.")
        else:
            try:
                self.say(line)
            except KeyboardInterrupt:
                print("\n(stopped)")

    def whole(self, text: str) -> Any:
        """The answer to `text` as the API gives it."""
        from myllm.cli.client import answer_of
        from myllm.cli.patient import WHOLE_S

        body = self._body(text, stream=False)
        return answer_of(self._server.post("/api/chat", json=body, timeout=WHOLE_S))

    def say(self, text: str) -> None:
        """Print the answer to `text` as it comes. Leaving stops the generation."""
        from myllm.cli.client import error_of

        body = self._body(text, stream=True)
        waiting = console(stderr=True).status(f"waiting for {self._model} …")
        waiting.start()
        try:
            with self._server.stream("POST", "/api/chat", json=body) as answer:
                if not answer.is_success:
                    raise error_of(answer.status_code, answer.read().decode())
                for line in answer.iter_lines():
                    if line.startswith(": "):
                        waiting.update(f"{self._model}: {line[2:]}")
                    elif line.startswith("data: "):
                        waiting.stop()
                        self._take(line[6:])
        finally:
            waiting.stop()

    def _take(self, data: str) -> None:
        """Print one event of the stream, or raise the error it tells."""
        import json

        from myllm.errors import MyLLMError

        event = json.loads(data)
        if "error" in event:
            print()
            raise MyLLMError(event["error"])
        self._answered = True
        if event["done"]:
            print(flush=True)
            if "warning" in event:
                print(event["warning"], file=sys.stderr)
        else:
            print(event["token"], end="", flush=True)

    def _body(self, text: str, stream: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        if self._system is not None:
            messages.insert(0, {"role": "system", "content": self._system})
        return {
            "model": self._model,
            "messages": messages,
            "history": "append",
            "session_id": self._session_id,
            "options": self._options,
            "stream": stream,
        }
