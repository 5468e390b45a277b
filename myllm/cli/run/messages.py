"""Reading messages from a person: lines, pasted lines, and blocks between triple quotes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from myllm.cli.common import warning

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

PROMPT, CONTINUATION = ">>> ", "... "
QUOTES = '"""'
_MAX_HISTORY_BYTES = 2**20


class Reader(Protocol):
    """Where messages come from."""

    def read(self) -> str:
        """The next message; raises EOFError at the end, KeyboardInterrupt on Ctrl+C."""
        ...


def reader(history: Path) -> Reader:
    """A reader with editing and a history file, or one of plain lines on a dumb terminal."""
    is_dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    if is_dumb or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return PlainReader()
    return EditingReader(history)


class PlainReader:
    """One line is one message, except in blocks."""

    def __init__(self) -> None:
        import readline  # noqa: F401 - gives `input` its line editing

    def read(self) -> str:
        text = input(PROMPT)
        while is_open_block(text):
            text += "\n" + input(CONTINUATION)
        return without_quotes(text)


class EditingReader:
    """Pasted lines are one message, which Enter ends; the arrow keys recall earlier messages."""

    def __init__(self, history: Path) -> None:
        from prompt_toolkit import PromptSession

        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            multiline=True,  # keeps the line breaks of pasted text; Enter is bound below
            prompt_continuation=CONTINUATION,
            key_bindings=_bindings(),
            reserve_space_for_menu=0,
        )

    def read(self) -> str:
        return without_quotes(self._session.prompt(PROMPT))


def is_open_block(text: str) -> bool:
    """Whether a block has begun and not ended."""
    text = text.strip()
    has_ended = text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES)
    return text.startswith(QUOTES) and not has_ended


def without_quotes(text: str) -> str:
    """A message without the quotes around a block."""
    block = text.strip()
    if not block.startswith(QUOTES) or is_open_block(block):
        return text
    return block[len(QUOTES) : -len(QUOTES)].strip("\n")


def _bindings() -> KeyBindings:
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()
    is_writing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @bindings.add("enter", filter=is_writing)
    def _end_or_go_on(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=is_writing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _history(path: Path) -> History:
    """The history in a file that only its user can read, or in memory if that fails."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        _shorten(path)
    except OSError as failure:
        warning(f"{path} cannot be used, so the history ends with this run: {failure.strerror}")
        return InMemoryHistory()
    return FileHistory(str(path))


def _shorten(path: Path) -> None:
    """Keep the newer half of a history that has grown long; an entry begins with a comment."""
    content = path.read_bytes()
    if len(content) <= _MAX_HISTORY_BYTES:
        return
    at = content.find(b"\n# ", len(content) - _MAX_HISTORY_BYTES // 2)
    aside = path.with_name(f".{path.name}.part")
    aside.touch(mode=0o600)
    aside.write_bytes(b"" if at < 0 else content[at:])
    aside.replace(path)
