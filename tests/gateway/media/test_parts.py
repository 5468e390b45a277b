"""Media in the history that cannot be had: they are left out, and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.messages import Messages
from myllm.gateway.media.parts import Elsewhere, Media, carried
from myllm.models.model import Model
from myllm.models.registry import Registry
from tests.ggufs import write_model
from tests.projectors import data_url, png, write_projector

RED = data_url(png(255, 0, 0), "image/png")
GONE = "http://gone.example/a.png"
NOT_FETCHED = {"type": "text", "text": "[image: left out, it cannot be fetched]"}


class Web:
    """Has a picture at every address but one."""

    async def fill(self, wanted: Sequence[Elsewhere]) -> None:
        for each in wanted:
            if each.url != GONE:
                each.place[each.name] = RED
            elif each.is_needed:
                raise InvalidRequest("gone")


@pytest.fixture
def eye(tmp_path: Path) -> Model:
    write_model(tmp_path / "eye" / "eye.gguf")
    write_projector(tmp_path / "eye" / "mmproj-eye.gguf", hears=False)
    return Registry(tmp_path).get("eye")


async def checked(model: Model, messages: Messages) -> tuple[Messages, str]:
    async def find(name: str) -> Model:
        return model

    ignored = Ignored()
    made = await Media(find, Web()).checked("eye", messages, ignored)
    return made, ignored.headers().get(HEADER, "")


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def conversation(*parts: Any) -> Messages:
    return [
        {"role": "user", "content": list(parts)},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": "And?"},
    ]


async def test_a_picture_that_is_gone_is_left_out_of_the_history(eye: Model) -> None:
    shown = "http://there.example/a.png"
    made, named = await checked(eye, conversation(picture(GONE), picture(shown), picture(RED)))
    apart = {"type": "text", "text": "\n"}
    assert made[0]["content"] == [NOT_FETCHED, picture(RED), apart, picture(RED)]
    assert named == "messages[0].content[0] (image)"


async def test_texts_alone_are_one_text_also_where_a_picture_is_gone(eye: Model) -> None:
    texts = [{"type": "text", "text": ""}, {"type": "text", "text": "What is it?"}]
    made, named = await checked(eye, conversation(*texts, picture(GONE)))
    assert made[0]["content"] == f"\nWhat is it?\n{NOT_FETCHED['text']}"
    assert named == "messages[0].content[2] (image)"


async def test_a_picture_that_is_gone_is_needed_in_the_message_to_be_answered(eye: Model) -> None:
    with pytest.raises(InvalidRequest, match="gone"):
        await checked(eye, conversation(picture(GONE))[:1])


def test_nothing_is_left_out_of_what_is_stored() -> None:
    for url in (GONE, "data:image/png;base64,A"):
        with pytest.raises(InvalidRequest):
            carried(conversation(picture(url)))
