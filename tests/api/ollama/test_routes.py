"""Ollama's dialect, with Ollama's own client and with plain HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN
from tests.encoders import CONTEXT, DIM, write_bert
from tests.ggufs import write_model
from tests.projectors import png, write_projector
from tests.serving import Serving, serving, short_home, wait_until
from tests.tooled import THOUGHTS, TOOLS, WEATHER, add_model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": WEATHER},
}
SCHEMA = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "tools", TOOLS, aliases=["gpt-4o", "helper:7b"])
        add_model(home / "models", "thoughts", THOUGHTS)
        write_model(home / "models/eye/eye.gguf")
        write_projector(home / "models/eye/mmproj-eye.gguf")
        write_bert(home / "models/bert/bert.gguf")
        (home / "models/bert/config.json").write_text('{"matryoshka": true}')
        with serving(home) as running:
            yield running


@pytest.fixture
def client(server: Serving) -> Iterator[ollama.Client]:
    with ollama.Client(host=f"{server.url}/ollama") as made:
        yield made


def ask(*contents: str) -> list[dict[str, str]]:
    """A conversation; the roles take turns."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]


def check_measured(end: ollama.ChatResponse | ollama.GenerateResponse) -> None:
    """Check that the last line has all measurements, and that they add up."""
    assert end.prompt_eval_count is not None
    assert end.prompt_eval_count > 5
    assert end.eval_count is not None
    assert end.eval_count > 0
    parts = (end.load_duration, end.prompt_eval_duration, end.eval_duration)
    measured = [part for part in parts if part is not None]
    assert len(measured) == 3
    assert all(part > 0 for part in measured)
    assert end.total_duration == pytest.approx(sum(measured), abs=1000)


def test_chat(client: ollama.Client) -> None:
    whole = client.chat("demo:latest", ask(FRANCE))
    assert whole.model == "demo:latest"
    assert whole.message.role == "assistant"
    assert whole.message.content == PARIS
    assert (whole.done, whole.done_reason) == (True, "stop")
    assert whole.eval_count == 10
    check_measured(whole)
    *pieces, end = client.chat("demo", ask(FRANCE), stream=True)
    assert len(pieces) > 3
    assert "".join(piece.message.content or "" for piece in pieces) == PARIS
    assert not any(piece.done for piece in pieces)
    assert (end.done, end.done_reason, end.message.content) == (True, "stop", "")
    check_measured(end)


def test_a_last_assistant_message_is_continued(client: ollama.Client) -> None:
    answer = client.chat("demo", ask(FRANCE, "The capital of"))
    assert answer.message.content == " France is Paris."


def test_generate_with_the_chat_template_and_without(client: ollama.Client) -> None:
    whole = client.generate("demo", FRANCE)
    assert whole.response == PARIS
    check_measured(whole)
    *pieces, end = client.generate("demo", FRANCE, stream=True)
    assert "".join(piece.response or "" for piece in pieces) == PARIS
    check_measured(end)
    systematic = client.generate("demo", FRANCE, system="Be brief.")
    assert (systematic.prompt_eval_count or 0) > (whole.prompt_eval_count or 0)
    raw = client.generate("demo", f"<|user|>{FRANCE}<|end|><|assistant|>", raw=True)
    assert raw.response == PARIS
    check_measured(raw)
    *pieces, end = client.generate("demo", "Once upon a time", raw=True, stream=True)
    assert pieces
    check_measured(end)


def test_the_lines_of_a_stream(server: Serving) -> None:
    with server.client() as api:
        # As in Ollama's documentation: curl's default Content-Type.
        answer = api.post(
            "/ollama/api/chat",
            content=json.dumps({"model": "demo", "messages": ask(FRANCE)}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert all(line["model"] == "demo" for line in lines)
    assert all(line["created_at"] for line in lines)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


def test_options(client: ollama.Client) -> None:
    def said(**options: Any) -> str | None:
        return client.chat("demo", ask(FRANCE), options=options).message.content

    short = client.chat("demo", ask(FRANCE), options={"num_predict": 3, "num_gpu": 99, "new": 1})
    assert (short.done_reason, short.eval_count) == ("length", 3)
    assert said(num_predict=-1) == PARIS
    assert said(stop=[" is"]) == said(stop=" is") == "The capital of France"
    wild = {"temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0, "num_predict": 20}
    assert said(**wild, seed=1) == said(**wild, seed=1) != said(**wild, seed=2)


def test_sampling_is_ollamas_unless_the_request_or_the_model_sets_it(
    client: ollama.Client, server: Serving
) -> None:
    def settings(**options: Any) -> dict[str, Any]:
        client.chat("tools", ask("Hello"), options={"num_predict": 1, **options})
        [engine] = [each for each in server.engines() if "tools" in each.cmdline()]
        arguments = engine.cmdline()
        socket = arguments[arguments.index("--host") + 1]
        transport = httpx.HTTPTransport(uds=socket)
        with httpx.Client(transport=transport, base_url="http://engine") as inside:
            slots = inside.get("/slots").json()
        used = max(slots, key=lambda slot: slot.get("id_task", -1))
        found: dict[str, Any] = used["params"]
        return found

    told = settings(temperature=0.5)
    assert told["temperature"] == pytest.approx(0.5)
    assert told["top_p"] == pytest.approx(0.9)
    assert told["top_k"] == 40
    assert told["min_p"] == 0
    assert settings()["temperature"] == 0  # config.json says so


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_a_format(client: ollama.Client, stream: bool) -> None:
    def text(answer: Any) -> str:
        parts = answer if stream else [answer]
        return "".join(part.message.content for part in parts)

    answer = client.chat("demo", ask("A number?"), format=SCHEMA, stream=stream)
    assert json.loads(text(answer)) == {"n": 7}
    raw = client.generate("demo", "A number?", format=SCHEMA, raw=True)
    assert json.loads(raw.response or "") == {"n": 7}


def test_a_call_of_a_tool_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat("tools", ask(FRANCE), tools=[TOOL])
    assert (whole.message.content or "").strip() == "The capital of France is"
    *pieces, end = client.chat("tools", ask(FRANCE), tools=[TOOL], stream=True)
    streamed = [call for piece in pieces for call in piece.message.tool_calls or ()]
    for [call] in (whole.message.tool_calls or [], streamed):
        assert call.function.name == "weather"
        assert call.function.arguments == {"city": "Paris"}
    assert end.done_reason == "stop"


def test_results_of_tools_are_read(client: ollama.Client) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    messages: list[dict[str, Any]] = [
        *ask(FRANCE),
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "It is sunny.", "tool_name": "weather"},
        {"role": "tool", "content": "It rains."},
    ]
    less = client.chat("tools", messages[:3], tools=[TOOL], options={"num_predict": 1})
    more = client.chat("tools", messages, tools=[TOOL], options={"num_predict": 1})
    assert (more.prompt_eval_count or 0) > (less.prompt_eval_count or 0)


def test_thoughts_have_their_own_field(client: ollama.Client) -> None:
    whole = client.chat("thoughts", ask(FRANCE), think=True)
    assert (whole.message.thinking, whole.message.content) == (PARIS, "")
    *pieces, _ = client.chat("thoughts", ask(FRANCE), think="high", stream=True)
    assert "".join(piece.message.thinking or "" for piece in pieces) == PARIS
    text = client.generate("thoughts", FRANCE, think=True)
    assert (text.thinking, text.response) == (PARIS, "")
    off = client.generate("thoughts", FRANCE, think=False, options={"num_predict": 1})
    assert (off.prompt_eval_count or 0) > (text.prompt_eval_count or 0)


def test_loading_and_unloading(client: ollama.Client) -> None:
    def loaded() -> set[str | None]:
        return {model.model for model in client.ps().models}

    asks: tuple[Any, ...] = (client.generate, client.chat)
    for send, keep, drop in zip(asks, ("1h", -1), (0, "0"), strict=True):
        load = send("thoughts", keep_alive=keep)
        assert (load.done, load.done_reason) == (True, "load")
        assert "thoughts:latest" in loaded()
        assert send("thoughts", keep_alive=drop).done_reason == "unload"
        assert "thoughts:latest" not in loaded()
    assert client.generate("thoughts", keep_alive=0).done_reason == "unload"
    client.chat("thoughts", ask("Hello"), keep_alive=0, options={"num_predict": 1})
    wait_until(lambda: "thoughts:latest" not in loaded(), 20, "it is unloaded")


def test_which_models_run(client: ollama.Client) -> None:
    client.generate("tools", keep_alive="1h")
    [running] = [model for model in client.ps().models if model.name == "tools:latest"]
    assert running.size is not None
    assert running.size > 10_000_000
    assert running.size_vram == 0
    assert running.context_length == 2048
    assert running.expires_at is not None
    client.generate("tools", keep_alive=-1)
    [running] = [model for model in client.ps().models if model.name == "tools:latest"]
    assert running.expires_at is not None
    assert running.expires_at.year == 9999


def test_embeddings(client: ollama.Client) -> None:
    one = client.embed("demo", "The cat sat on the mat")
    [vector] = one.embeddings
    assert math.isclose(sum(value**2 for value in vector), 1, rel_tol=1e-3)
    assert one.prompt_eval_count is not None
    assert one.prompt_eval_count > 3
    assert one.total_duration is not None
    two = client.embed("demo", ["The cat sat on the mat", "How do I pull a model?"])
    assert two.embeddings[0] == pytest.approx(vector, abs=1e-3)
    assert two.embeddings[1] != two.embeddings[0]
    assert client.embeddings("demo", "The cat sat on the mat").embedding == pytest.approx(
        vector, abs=1e-3
    )
    assert client.embed("demo", []).embeddings == []


def test_embeddings_of_long_texts_and_of_fewer_dimensions(client: ollama.Client) -> None:
    text = " ".join("abcdefghij" * 20)
    cut = client.embed("bert", text)
    assert cut.prompt_eval_count == CONTEXT
    fitting = client.embed("bert", text[: 2 * (CONTEXT - 2)], truncate=False)
    assert fitting.prompt_eval_count == CONTEXT
    assert cut.embeddings[0] == pytest.approx(fitting.embeddings[0], abs=1e-5)
    with pytest.raises(ollama.ResponseError, match="too long") as refused:
        client.embed("bert", text, truncate=False)
    assert refused.value.status_code == 400
    [short] = client.embed("bert", text, dimensions=DIM // 2).embeddings
    assert len(short) == DIM // 2
    assert client.embeddings("bert", text).embedding == pytest.approx(cut.embeddings[0], abs=1e-5)
    with pytest.raises(ollama.ResponseError, match="embeddings only"):
        client.chat("bert", ask("Hello"))


def test_images_are_seen(client: ollama.Client) -> None:
    def tokens(images: list[bytes] | None) -> int:
        shown = {"role": "user", "content": "What is it?", "images": images}
        chat = client.chat("eye", [shown], options={"num_predict": 1})
        text = client.generate("eye", "What is it?", images=images, options={"num_predict": 1})
        assert chat.prompt_eval_count == text.prompt_eval_count
        return chat.prompt_eval_count or 0

    red = png(255, 0, 0)
    assert tokens(None) + 16 <= tokens([red]) < tokens([red, red])
    assert client.show("eye").capabilities == ["completion", "vision"]


def test_what_there_is(client: ollama.Client, server: Serving) -> None:
    models = {model.model: model for model in client.list().models}
    assert {"demo:latest", "tools:latest", "gpt-4o:latest", "helper:7b"} <= set(models)
    demo = models["demo:latest"]
    assert demo.size is not None
    assert demo.size > 1_000_000
    assert demo.modified_at is not None
    assert demo.details is not None
    assert (demo.details.format, demo.details.family) == ("gguf", "llama")
    assert (demo.details.parameter_size or "").endswith("M")
    assert client.chat("helper:7b", ask(FRANCE)).message.content == PARIS


def test_show(client: ollama.Client) -> None:
    shown = client.show("tools")
    assert shown.capabilities == ["completion", "tools"]
    assert shown.template == TOOLS
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 2048
    assert shown.parameters == "temperature 0\nrepeat_penalty 1.0"
    assert client.show("thoughts:latest").capabilities == ["completion", "thinking"]
    assert client.show("demo").capabilities == ["completion"]
    assert client.show("bert").capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError, match="Model 'nope' not found") as missing:
        client.show("nope")
    assert missing.value.status_code == 404


def test_whether_it_is_there(server: Serving) -> None:
    with server.client() as api:
        for path in ("/ollama", "/ollama/"):
            assert api.get(path).text == "Ollama is running"
            assert api.head(path).status_code == 200
        version = api.get("/ollama/api/version").json()["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]


def test_deleting(client: ollama.Client, server: Serving) -> None:
    add_model(server.models_dir, "gone", TOOLS)
    client.generate("gone")
    assert client.delete("gone").status == "success"
    assert not (server.models_dir / "gone").exists()
    for name, status in (("gone", 404), ("demo", 400)):
        with pytest.raises(ollama.ResponseError) as refused:
            client.delete(name)
        assert refused.value.status_code == status


def test_errors_are_the_clients_exceptions(client: ollama.Client, server: Serving) -> None:
    def refused(**body: Any) -> ollama.ResponseError:
        with pytest.raises(ollama.ResponseError) as error:
            client.generate(**{"model": "demo", "prompt": "Hello"} | body)
        return error.value

    missing = refused(model="nope")
    assert missing.status_code == 404
    assert missing.error.startswith("Model 'nope' not found")
    with pytest.raises(ollama.ResponseError) as streamed:
        list(client.chat("nope", ask("Hello"), stream=True))
    assert streamed.value.status_code == 404
    assert "Prompt too long" in refused(prompt="word " * 3000).error
    for field, value in (("template", "x"), ("context", [1])):
        error = refused(**{field: value})
        assert (error.status_code, error.error.split()[0]) == (400, field)
    assert refused(raw=True, system="Be brief.").status_code == 400
    assert refused(options={"temperature": -1}).error == "temperature must be between 0.0 and 2.0"
    seen = refused(images=[b"\x89PNG\r\n\x1a\n"])
    assert seen.status_code == 400
    assert "image" in seen.error
    with server.client() as api:
        answer = api.post("/ollama/api/chat", content="{")
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def test_keys(locked: Serving) -> None:
    host, headers = f"{locked.url}/ollama", {"Authorization": f"Bearer {ANN}"}
    with ollama.Client(host=host, headers=headers) as ann:
        assert ann.chat("demo", ask(FRANCE)).message.content == PARIS
    with ollama.Client(host=host) as keyless, pytest.raises(ollama.ResponseError) as refused:
        keyless.chat("demo", ask("Hello"))
    assert refused.value.status_code == 401


async def test_the_asynchronous_client(server: Serving) -> None:
    async with ollama.AsyncClient(host=f"{server.url}/ollama") as client:
        assert (await client.chat("demo", ask(FRANCE))).message.content == PARIS
        pieces = [piece async for piece in await client.generate("demo", FRANCE, stream=True)]
        assert "".join(piece.response or "" for piece in pieces) == PARIS
        assert (await client.embed("demo", "Hello")).embeddings
        assert (await client.list()).models


def test_a_client_that_leaves_frees_its_slot(client: ollama.Client, api: httpx.Client) -> None:
    def busy() -> int:
        running = api.get("/api/instances").json()["instances"]
        return sum(each["slots"]["busy"] for each in running if each["model"] == "demo")

    answer = client.chat("demo", ask("Count to one hundred."), stream=True)
    next(answer)
    assert busy() == 1
    answer.close()
    wait_until(lambda: busy() == 0, 5, "the slot is free")


def test_copying(client: ollama.Client, server: Serving) -> None:
    assert client.copy("gpt-4o:latest", "second:latest").status == "success"
    assert "second:latest" in {model.model for model in client.list().models}
    shown = client.show("second")
    assert shown.template == client.show("tools").template
    for source, destination, status in (
        ("nope", "third", 404),
        ("tools", "second", 409),
        ("tools", "org/third", 400),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            client.copy(source, destination)
        assert caught.value.status_code == status
    client.delete("second")
    assert not (server.models_dir / "second").exists()
    assert client.show("tools").template
