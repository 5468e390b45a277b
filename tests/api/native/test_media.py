"""Images and audio through `/v1/chat/completions`, with models that take them.

Their weights are random, so what they say is nothing; but it depends on what they were shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.ggufs import write_model
from tests.projectors import b64, data_url, png, wav, write_projector
from tests.serving import Serving, serving, short_home

RED, GREEN, BLUE = (
    data_url(png(*colour), "image/png") for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))
)
LOW, HIGH = (b64(wav(hertz)) for hertz in (300, 3000))
CHAT = "/v1/chat/completions"
SEEN, HEARD = 16, 10  # tokens


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path:
        for name, senses in (("both", {"hears": True}), ("eye", {}), ("ear", {"sees": False})):
            write_model(path / "models" / name / f"{name}.gguf")
            hears = {"hears": name != "eye"}
            write_projector(path / "models" / name / f"mmproj-{name}.gguf", **(senses | hears))
        with serving(path, threads=1) as running:
            yield running


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def sound(data: str, kind: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": kind}}


def body(*parts: Any, model: str = "both", **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "What is it?"}, *parts]
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0} | more


def ask(api: httpx.Client, *parts: Any, **more: Any) -> tuple[str, int]:
    """Return the answer, and how many tokens the prompt had."""
    answer = api.post(CHAT, json=body(*parts, **more))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    return said["choices"][0]["message"]["content"], said["usage"]["prompt_tokens"]


def refusal(api: httpx.Client, *parts: Any, model: str = "both") -> str:
    answer = api.post(CHAT, json=body(*parts, model=model))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return str(error["message"])


def test_models_list_their_inputs(api: httpx.Client) -> None:
    def takes(model: str) -> list[str]:
        shown: list[str] = api.get(f"/api/models/{model}").json()["input"]
        return shown

    assert takes("demo") == ["text"]
    assert takes("eye") == ["text", "image"]
    assert takes("ear") == ["text", "audio"]
    assert takes("both") == ["text", "image", "audio"]


def test_a_picture_is_seen(api: httpx.Client) -> None:
    blind, few = ask(api)
    red, many = ask(api, picture(RED))
    blue, _ = ask(api, picture(BLUE))
    assert few + SEEN <= many < few + SEEN + 5  # ... with what keeps it apart from the text
    assert len({blind, red, blue}) == 3


def test_two_pictures_side_by_side_leave_a_slot_in_order(api: httpx.Client) -> None:
    red = ask(api, picture(RED))
    for second in (BLUE, GREEN):
        said, many = ask(api, picture(RED), picture(second))
        assert many > red[1] + SEEN
        assert ask(api, picture(RED)) == red
        assert ask(api, picture(RED), picture(second)) == (said, many)


def test_a_sound_is_heard(api: httpx.Client) -> None:
    deaf, few = ask(api)
    low, many = ask(api, sound(LOW))
    high, _ = ask(api, sound(HIGH))
    assert few + HEARD < many < few + HEARD + 30  # ... with marks around it
    assert len({deaf, low, high}) == 3


def test_every_way_to_write_the_same_is_the_same(api: httpx.Client) -> None:
    base64 = RED.partition(",")[2]
    lines = "\n".join(base64[at : at + 76] for at in range(0, len(base64), 76))
    red, low = ask(api, picture(RED)), ask(api, sound(LOW))
    for same in (
        picture(base64),
        picture(lines),
        picture(RED.replace("data:image/png;", "DATA:image/png;name=a.png;")),
        {"type": "image_url", "image_url": RED},
        {"type": "file", "file": {"filename": "red.png", "file_data": RED}},
    ):
        assert ask(api, same) == red
    for same in (
        sound(f"data:audio/wav;base64,{LOW}"),
        {"type": "file", "file": {"file_data": f"data:audio/x-wav;base64,{LOW}"}},
    ):
        assert ask(api, same) == low


def test_a_stream_and_several_choices_see_too(api: httpx.Client) -> None:
    whole, _ = ask(api, picture(RED))
    answer = api.post(CHAT, json=body(picture(RED), stream=True))
    assert answer.text.endswith("data: [DONE]\n\n")
    said = api.post(CHAT, json=body(picture(RED), n=2)).json()
    assert [choice["message"]["content"] for choice in said["choices"]] == [whole, whole]


@pytest.mark.parametrize(
    ("model", "part", "why"),
    [
        ("demo", picture(RED), "Model 'demo' cannot see images: it has no projector "
                               "(mmproj-*.gguf) next to its GGUF"),
        ("demo", sound(LOW), "Model 'demo' cannot hear audio: it has no projector "
                             "(mmproj-*.gguf) next to its GGUF"),
        ("eye", sound(LOW), "Model 'eye' cannot hear audio: its projector (mmproj-eye.gguf) "
                            "has no audio encoder"),
        ("ear", {"type": "file", "file": {"file_data": RED}},
         "Model 'ear' cannot see images: its projector (mmproj-ear.gguf) has no vision encoder"),
    ],
)  # fmt: skip
def test_unsupported_media_are_refused(api: httpx.Client, model: str, part: Any, why: str) -> None:
    assert refusal(api, part, model=model) == why


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (picture("file:///etc/passwd"), "content[1].image_url.url must be a data: URL or base64"),
        (picture("ftp://a/b"), "must be a data: URL or base64"),
        (picture("http://127.0.0.1/x.png"), "MYLLM_REMOTE_MEDIA"),
        (picture("HTTPS://example.com/x.png"), "MYLLM_REMOTE_MEDIA"),
        (picture("data:image/png,raw"), "must be a data: URL, such as"),
        (picture("data:image/png;base64"), "must be a data: URL, such as"),
        (picture("data:text/html;base64,AAAA"), "must be of type image/..., not text/..."),
        (picture(f"data:audio/wav;base64,{LOW}"), "must be of type image/..., not audio/..."),
        (picture("data:image/png;base64,AA*A"), "is not valid base64"),
        (picture("data:image/png;base64,AAA"), "is not valid base64"),
        (picture("data:image/png;base64,"), "must not be empty"),
        (picture("httpAAAA!"), "is not valid base64"),
        (picture(""), "must not be empty"),
        (picture(b64(b"no picture")), "The engine refused the request"),
        (sound(b64(b"no sound")), "The engine refused the request"),
        (sound("http://127.0.0.1/x.wav"), "MYLLM_REMOTE_MEDIA"),
        (sound(LOW, "opus"), "content[1].input_audio.format must be one of wav, mp3, flac"),
        ({"type": "image_url"}, "content[1].image_url.url must be a string"),
        ({"type": "image_url", "image_url": {"url": 1}}, "image_url.url must be a string"),
        ({"type": "input_audio", "input_audio": "x"}, "input_audio.data must be a string"),
        ({"type": "text", "text": 1}, "content[1].text must be a string"),
        ({"type": "file", "file": {"file_id": "f"}}, "file.file_data must be a string"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
         "must be of type image/... or audio/..., not application/..."),
        ({"type": "video_url", "video_url": {"url": RED}}, "content[1].type must be 'text'"),
        ({"type": "media_marker", "data": "x"}, "not 'media_marker'"),
        ({}, "content[1].type must be 'text'"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(api: httpx.Client, part: Any, why: str) -> None:
    assert why in refusal(api, part)


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"type": "file", "file": {"file_id": "f1"}}, "file"),
    ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}, "file"),
    ({"type": "file", "file": {"file_data": RED[:-1]}}, "file"),
    ({"type": "file"}, "file"),
    (sound(LOW, "webm"), "audio"),
    (sound("", "wav"), "audio"),
    ({"type": "input_audio", "input_audio": "x"}, "audio"),
    (picture("http://example.com/a.png"), "image"),
    (picture("file:///etc/passwd"), "image"),
    (picture("data:image/png;base64,AA*A"), "image"),
    (picture(f"data:audio/wav;base64,{LOW}"), "image"),
    ({"type": "image_url", "image_url": {"file_id": "f1"}}, "image"),
]


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize(("part", "medium"), UNREADABLE)
def test_what_cannot_be_read_is_left_out_of_the_history(
    api: httpx.Client, part: dict[str, Any], medium: str, path: str
) -> None:
    """Otherwise every later turn would be refused, too."""
    asked = body(picture(RED), part)
    asked["messages"] += [
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    asked["stream"] = False
    answer = api.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-MyLLM-Ignored"] == f"messages[0].content[2] ({medium})"
    asked["messages"] = asked["messages"][:1]
    assert api.post(path, json=asked).status_code == 400


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (
            "/v1/messages",
            [{"type": "image", "source": {"type": "url", "url": "http://example.com/a.png"}}],
        ),
        (
            "/v1/responses",
            [{"type": "input_image", "image_url": "data:image/png;base64,AA*A"}],
        ),
        ("/ollama/api/chat", ["AA*A"]),
    ],
)
def test_other_dialects_leave_it_out_too(api: httpx.Client, path: str, parts: list[Any]) -> None:
    shown: dict[str, Any] = {"role": "user", "content": parts}
    if path.startswith("/ollama"):
        shown = {"role": "user", "content": "What is it?", "images": parts}
    turns = [
        shown,
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": "And now?"},
    ]

    def ask(turns: list[Any]) -> httpx.Response:
        field = "input" if path == "/v1/responses" else "messages"
        limit = {"max_tokens": 8} if path == "/v1/messages" else {}
        return api.post(path, json={"model": "both", "stream": False, field: turns} | limit)

    answer = ask(turns)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-MyLLM-Ignored"] == "messages[0].content[0] (image)"
    assert ask(turns[:1]).status_code == 400


def test_an_unknown_model_is_reported_before_bad_media(api: httpx.Client) -> None:
    assert api.post(CHAT, json=body(picture("x"), model="none")).status_code == 404


def test_even_where_addresses_are_fetched_this_machine_is_not(
    engine: Engine, home: Any, server: Serving
) -> None:
    write_model(home / "models/eye/eye.gguf")
    write_projector(home / "models/eye/mmproj.gguf")
    with serving(home, remote_media=True) as open_one, open_one.client() as api:
        for host in (server.url, server.url.replace("127.0.0.1", "localhost")):
            said = refusal(api, picture(f"{host}/x.png"), model="eye")
            assert said.endswith("cannot be fetched: it leads to an address that is not public")
            later = body(picture(f"{host}/x.png"), model="eye")
            later["messages"] += [
                {"role": "assistant", "content": "A picture."},
                {"role": "user", "content": "And now?"},
            ]
            answer = api.post(CHAT, json=later)
            assert answer.status_code == 200, answer.text
            assert answer.headers["X-MyLLM-Ignored"] == "messages[0].content[1] (image)"
    assert "/x.png" not in server.log


def test_another_dialect_sees_the_same_and_reads_no_files(api: httpx.Client) -> None:
    def ask(source: dict[str, Any], path: str = "/v1/messages") -> httpx.Response:
        blocks = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
        messages = [{"role": "user", "content": blocks}]
        body = {"model": "eye", "messages": messages, "max_tokens": 8, "temperature": 0}
        return api.post(path, json=body)

    red = {"type": "base64", "media_type": "image/png", "data": RED.partition(",")[2]}
    seen = ask(red)
    assert seen.status_code == 200, seen.text
    assert seen.json()["usage"]["input_tokens"] > SEEN
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        for url, why in (("file:///etc/passwd", "data: URL"), ("http://1.1.1.1/", "REMOTE_MEDIA")):
            refused = ask({"type": "url", "url": url}, path)
            assert refused.status_code == 400, refused.text
            assert why in refused.json()["error"]["message"]


def test_a_chat_remembers_what_it_was_shown(api: httpx.Client) -> None:
    """Also if the engine was stopped in between, which cannot save images."""
    asked = {"options": {"max_tokens": 4, "temperature": 0}, "stream": False, "model": "both"}
    content = [{"type": "text", "text": "What is it?"}, picture(RED)]
    shown = {"messages": [{"role": "user", "content": content}]}
    first = api.post("/api/chat", json=asked | shown).raise_for_status().json()
    plain = {"messages": [{"role": "user", "content": "What is it?"}]}
    without = api.post("/api/chat", json=asked | plain).raise_for_status().json()
    seen = first["usage"]["prompt_tokens"] - without["usage"]["prompt_tokens"]
    assert seen >= SEEN
    session = {"session_id": first["session_id"]}
    [said, _] = api.get(f"/api/sessions/{first['session_id']}").json()["messages"]
    assert (said["content"], said["parts"][1]) == ("What is it?", picture(RED))
    assert api.post("/api/models/both/unload").status_code == 200
    more = {"messages": [{"role": "user", "content": "And?"}]}
    second = api.post("/api/chat", json=asked | session | more).raise_for_status().json()
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + SEEN // 2
    refused = api.post("/api/chat", json=asked | shown | {"model": "demo"})
    assert refused.status_code == 400
    assert "cannot see images" in refused.json()["detail"]
