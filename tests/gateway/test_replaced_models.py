"""An engine dies in the middle of an answer, and its model's folder is no longer what it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import myllm
from myllm.engine.engine import Engine
from myllm.errors import InvalidModel, ModelReplaced, MyLLMError
from myllm.gateway.engine_io import transport
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.completion import Generation
from myllm.gateway.generation.relay import CHAT, Relay
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running
from tests.ggufs import write_model

DEMO = Path(myllm.__file__).parent / "models/builtin/demo"
KEY = InstanceKey("toy", "generate")
TEXT = re.compile(rb'"(content|text)":"[^"]')
MESSAGES = [{"role": "user", "content": "Count to one hundred."}]


def relayed(gateway: Gateway, **more: Any) -> AsyncGenerator[object, None]:
    body = {"messages": MESSAGES, "temperature": 0, "seed": 1, **more}
    return Relay(gateway, RequestInfo().ticket(KEY), CHAT, body).blocks()


def generated(gateway: Gateway, **more: Any) -> AsyncGenerator[object, None]:
    async def build_prompt(instance: Instance) -> str:
        return "Count to one hundred."

    fields = {"temperature": 0, "seed": 1, "n_predict": 64, **more}
    return Generation(gateway, RequestInfo().ticket(KEY), fields, build_prompt).events()


ANSWERS: dict[str, Callable[[Gateway], AsyncGenerator[object, None]]] = {
    "relayed": relayed,
    "relayed again": lambda gateway: relayed(gateway, response_format={"type": "json_object"}),
    "generated": generated,
    "generated again": lambda gateway: generated(gateway, json_schema={"type": "string"}),
}


def events_of(block: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in block.split(b"\n\n") if event]


def cut_once(
    monkeypatch: pytest.MonkeyPatch, damage: Callable[[], object], begun: bool = True
) -> None:
    """Let the engine of the next stream die behind the first text (or, if it is not
    `begun`, before anything is), and do `damage` before that."""
    stream = transport.stream

    async def cut(
        instance: Instance, path: str, body: dict[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        monkeypatch.setattr(transport, "stream", stream)
        async with aclosing(stream(instance, path, body)) as blocks:
            async for event in (event async for block in blocks for event in events_of(block)):
                if begun:
                    yield event
                if not begun or TEXT.search(event):
                    break
        damage()
        assert instance.pid is not None
        os.kill(instance.pid, signal.SIGKILL)
        await instance.ended.wait()
        assert instance.error is not None
        raise instance.error

    monkeypatch.setattr(transport, "stream", cut)


async def end_of(answer: AsyncGenerator[object, None]) -> MyLLMError | None:
    """What an answer fails with, if it does."""
    try:
        async with aclosing(answer):
            async for _ in answer:
                pass
    except MyLLMError as failure:
        return failure
    return None


@pytest.fixture
def folder(home: Path) -> Path:
    return Path(shutil.copytree(DEMO, home / "models" / "toy"))


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_is_not_continued_with_another_gguf(
    engine: Engine, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cut_once(monkeypatch, lambda: write_model(folder / "demo.gguf"))
    async with running(engine, home) as gateway:
        failure = await end_of(ANSWERS[kind](gateway))
    assert isinstance(failure, ModelReplaced)
    assert failure.retryable
    assert "the model's files had been replaced in the meantime; please ask again" in failure.detail


@pytest.mark.parametrize("kind", ["relayed", "generated"])
async def test_an_answer_that_has_not_begun_is_given_by_the_new_gguf(
    engine: Engine, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cut_once(monkeypatch, lambda: write_model(folder / "demo.gguf"), begun=False)
    async with running(engine, home) as gateway:
        assert await end_of(ANSWERS[kind](gateway)) is None


@pytest.mark.parametrize("kind", ["relayed", "generated"])
async def test_a_broken_folder_is_why_an_answer_cannot_be_continued(
    engine: Engine, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cut_once(monkeypatch, lambda: (folder / "config.json").write_text("{,"))
    async with running(engine, home) as gateway:
        failure = await end_of(ANSWERS[kind](gateway))
        assert isinstance(failure, InvalidModel)
        assert f"{folder / 'config.json'} is not valid JSON" in failure.detail
        assert gateway.supervisor.history(KEY).last_error == failure.detail
