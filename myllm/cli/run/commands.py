"""Input that begins with a slash: commands about the conversation, not messages to the model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myllm.cli.common import say, write_aside
from myllm.cli.run.printing import print_answer
from myllm.cli.run.settings import OPTIONS, parse, shown
from myllm.cli.run.talk import Talk
from myllm.errors import InvalidRequest

# A word with another slash or a dot is a path, and thus part of a message.
_COMMAND = re.compile(r"/[A-Za-z?]*")
_OTHER_NAMES = {"/quit": "/exit", "/bye": "/exit", "/?": "/help"}


@dataclass(frozen=True)
class _Command:
    usage: str
    about: str
    do: Callable[[str], None]


class Leave(Exception):
    """The user ends the conversation."""


def is_command(text: str) -> bool:
    """Whether `text` is a command; a space before the slash makes it a message."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    name = _OTHER_NAMES.get(first, first)
    takes_lines = name in ("/system", "/set")
    is_one_line = takes_lines or "\n" not in text.strip()
    return text.startswith("/") and is_one_line and _COMMAND.fullmatch(first) is not None


class Commands:
    """The commands of one conversation."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._saved: set[Path] = set()
        self._commands = {
            "/set": _Command("/set [NAME VALUE]", "show or change options of answers", self._set),
            "/show": _Command("/show", "the model, the settings and the conversation", self._show),
            "/system": _Command("/system [TEXT]", "show or set the instructions", self._system),
            "/regenerate": _Command("/regenerate", "answer the last question anew", self._again),
            "/undo": _Command("/undo", "take the last turn back", self._undo),
            "/save": _Command("/save FILE", "as Markdown, or as JSON in a *.json", self._save),
            "/clear": _Command("/clear", "begin a new conversation", self._clear),
            "/help": _Command("/help", "this text", self._help),
            "/exit": _Command("/exit", "leave (so does Ctrl+D, or Ctrl+C twice)", self._exit),
        }

    def do(self, text: str) -> None:
        """Carry out a command. Raises Leave, or MyLLMError if the command fails."""
        first, _, rest = text.strip().partition(" ")
        if "\n" in first:
            first, _, rest = text.strip().partition("\n")
        name = _OTHER_NAMES.get(first, first)
        if name not in self._commands:
            near = difflib.get_close_matches(name, self._commands, n=1, cutoff=0.0)[0]
            raise InvalidRequest(
                f"unknown command {first}; did you mean {near}? With a space before it, it is a "
                "message to the model"
            )
        self._commands[name].do(rest.strip())

    def _set(self, rest: str) -> None:
        choices = self._talk.choices
        name, _, value = rest.partition(" ")
        if not name:
            say("\n".join(shown(choices)))
            return
        name = name.replace("-", "_")
        parsed = parse(name, value.strip())
        if name == "verbose":
            choices.verbose = parsed is not False
        elif name == "thinking":
            choices.thinking = parsed
        elif parsed is None:
            choices.options.pop(name, None)
        else:
            choices.options[name] = parsed
        say(next(line for line in shown(choices, everything=True) if line.startswith(f"{name} ")))

    def _show(self, rest: str) -> None:
        about = self._talk.about_model()
        names = ("name", "family", "architecture", "quantization", "context_size", "input")
        for name in names:
            value: Any = about.get(name)
            if value is not None:
                text = ", ".join(value) if isinstance(value, list) else str(value)
                say(f"{name.replace('_', ' '):<18} {text}")
        say(f"{'thinks':<18} {'yes' if about.get('thinking') else 'no'}")
        say(f"{'conversation':<18} {self._talk.session_id}")
        say(f"{'system':<18} {self._talk.choices.system or '-'}")
        say("\n".join(shown(self._talk.choices)))

    def _system(self, rest: str) -> None:
        if rest:
            self._talk.choices.system = rest
        say(f"system: {self._talk.choices.system or '-'}")

    def _again(self, rest: str) -> None:
        print_answer(self._talk.ask_again(), self._talk.model, self._talk.choices.verbose)

    def _undo(self, rest: str) -> None:
        question = " ".join(self._talk.take_back().split())
        say(f"Taken back: {question if len(question) <= 60 else question[:59] + '…'}")

    def _save(self, rest: str) -> None:
        if not rest:
            raise InvalidRequest("/save needs the name of a file, such as talk.md or talk.json")
        path = Path(rest).expanduser().absolute()
        if path.exists() and path not in self._saved:
            raise InvalidRequest(f"{path} exists already; choose another name")
        if not self._talk.messages():
            raise InvalidRequest("nothing has been said yet")
        form = "json" if path.suffix.lower() == ".json" else "markdown"
        write_aside(path, self._talk.exported(form))
        self._saved.add(path)
        say(f"Saved as {path}")

    def _clear(self, rest: str) -> None:
        self._talk.start_anew()
        say("A new conversation begins.")

    def _help(self, rest: str) -> None:
        for command in self._commands.values():
            say(f"{command.usage:<18} {command.about}")
        say(
            '"""                begins and ends a message of several lines\n'
            "Alt+Enter          begins another line of a message\n"
            "Up, Down           bring back earlier messages\n"
            f"Names for /set: {', '.join(OPTIONS)}; the value `default` takes one back.\n"
            "Ctrl+C stops an answer."
        )

    def _exit(self, rest: str) -> None:
        raise Leave
