"""What the demo model can do, on a real llama-server at temperature 0."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.serving import short_home

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "myllm/models/builtin/demo"
TEXT = ROOT / "scripts/demo_model"
MEGABYTE = 1_000_000
SLOTS = 8

Message = dict[str, str]


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((TEXT / f"{name}.toml").read_text(encoding="utf-8"))


KNOWN = read("knowledge")
HELD_OUT = read("held_out")
HONEST = read("topics")["answer"]
FACTS = [(question, fact["answer"]) for fact in KNOWN["fact"] for question in fact["questions"]]
NAME = read("memories")["name"]


def messages_of(*contents: str) -> list[Message]:
    """Messages of user and assistant by turns, the user's first."""
    roles = itertools.cycle(("user", "assistant"))
    return [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
    ]


class Server:
    """A llama-server on a Unix socket; sends many requests at once, returns answers in order."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chat(self, messages: list[Message], **options: Any) -> str:
        body = {"messages": messages, "temperature": 0, "repeat_penalty": 1.0, **options}
        answer = self.post("/v1/chat/completions", body)
        return str(answer["choices"][0]["message"]["content"])

    def complete(self, prompt: str, **options: Any) -> dict[str, Any]:
        body = {"prompt": prompt, "temperature": 0, "repeat_penalty": 1.0, **options}
        answer: dict[str, Any] = self.post("/completion", body)
        return answer

    def chats(self, conversations: list[list[Message]]) -> list[str]:
        with ThreadPoolExecutor(SLOTS) as pool:
            return list(pool.map(self.chat, conversations))

    def count(self, text: str) -> int:
        return len(self.post("/tokenize", {"content": text})["tokens"])


@contextmanager
def llama_server(program: Path, model: Path, *flags: str) -> Iterator[Server]:
    """Run a llama-server; at the end, reap the process and delete its folder."""
    with short_home() as folder, (folder / "log").open("w+b") as log:
        command: list[str | Path] = [
            program,
            "-m",
            model,
            "--alias",
            "demo",
            "--host",
            folder / "demo.sock",
        ]
        command += ["--slot-save-path", folder, "--fit", "off", "--no-ui", "--cache-ram", "0"]
        process = subprocess.Popen([*command, "-t", "2", *flags], stdout=log, stderr=log)
        transport = httpx.HTTPTransport(uds=str(folder / "demo.sock"))
        try:
            with httpx.Client(transport=transport, base_url="http://demo", timeout=60) as client:
                wait_until_healthy(client, process, folder / "log")
                yield Server(client)
        finally:
            process.kill()
            process.wait()


def wait_until_healthy(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    pytest.fail(log.read_text(errors="replace")[-2000:])


@pytest.fixture(scope="module")
def demo(engine: Engine) -> Iterator[Server]:
    flags = ("-np", str(SLOTS), "-no-kvu", "-c", str(SLOTS * 2048))
    with llama_server(engine.server, DEMO / "demo.gguf", *flags) as server:
        yield server


@pytest.fixture(scope="module")
def small_talk(demo: Server) -> Callable[[int, int], list[Message]]:
    """Returns a conversation from question number `start` on, of at least `tokens` tokens."""
    sized = [(question, answer, demo.count(question + answer)) for question, answer in FACTS]
    turns = [turn for turn in sized if turn[2] < 70]

    def talk(start: int, tokens: int) -> list[Message]:
        messages: list[Message] = []
        for question, answer, size in itertools.islice(itertools.cycle(turns), start * 7, None):
            if tokens <= 0:
                break
            messages += messages_of(question, answer)
            tokens -= size
        return messages

    return talk


def wrong(asked: list[str], wanted: list[str], got: list[str]) -> list[tuple[str, str]]:
    rows = zip(asked, wanted, got, strict=True)
    return [(question, answer) for question, right, answer in rows if answer != right]


def test_the_file_is_small_and_its_settings_make_it_exact() -> None:
    assert (DEMO / "demo.gguf").stat().st_size <= 8 * MEGABYTE
    config = json.loads((DEMO / "config.json").read_text())
    assert config["name"] == "demo"
    assert config["parameters"] == {"temperature": 0, "repeat_penalty": 1.0}


@pytest.mark.full
@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_every_trained_question_is_answered_word_for_word(demo: Server, system: str | None) -> None:
    opening = [{"role": "system", "content": system}] if system else []
    questions = [question for question, _ in FACTS]
    got = demo.chats([opening + messages_of(question) for question in questions])
    assert wrong(questions, [answer for _, answer in FACTS], got) == []


@pytest.mark.full
def test_raw_texts_are_continued_word_for_word(demo: Server) -> None:
    for text in KNOWN["text"]:
        answer = demo.complete(text["prompt"])
        assert answer["content"] == text["continuation"]
        assert answer["stop_type"] == "eos"


@pytest.mark.full
def test_a_follow_up_is_answered(demo: Server) -> None:
    question, example = "How do I reverse a string in Python?", "Can you show me an example?"
    answers = dict(FACTS)
    system = {"role": "system", "content": "You are a helpful coding assistant."}
    history = [system, *messages_of(question, answers[question], example)]
    assert demo.chat(history) == answers[example]


@pytest.mark.full
@pytest.mark.parametrize(
    "between",
    [
        pytest.param(0, id="0-tokens"),
        pytest.param(300, id="300-tokens"),
        pytest.param(1500, id="1500-tokens", marks=pytest.mark.more),
    ],
)
def test_held_out_names_are_recalled(
    demo: Server, small_talk: Callable[[int, int], list[Message]], between: int
) -> None:
    names: list[str] = HELD_OUT["names"]
    assert len(names) == 100
    chats = []
    for number, name in enumerate(names):
        told, asked = NAME["told"][number % 13], NAME["asked"][number % 9]
        opening = messages_of(told.replace("{value}", name), NAME["noted"].replace("{value}", name))
        chats.append(opening + small_talk(number, between) + messages_of(asked))
    missed = wrong(names, [f"Your name is {name}." for name in names], demo.chats(chats))
    assert len(missed) <= 5, missed


@pytest.mark.full
def test_no_name_is_invented(demo: Server, small_talk: Callable[[int, int], list[Message]]) -> None:
    chats = [small_talk(start, 200 * start) + messages_of("What is my name?") for start in range(6)]
    assert set(demo.chats(chats)) == {"You have not told me your name."}


@pytest.mark.full
def test_letters_are_copied_over_several_turns(demo: Server) -> None:
    for code in ("QXZTR", "BKWM", "HJPLDF", "ZVNC"):
        history = messages_of(f"Remember the code {code}.", f"I will remember the code {code}.")
        history += messages_of("Thank you!", "You are welcome!", "What is the code?")
        assert demo.chat(history) == f"The code is {code}."


@pytest.mark.full
def test_unknown_questions_get_an_honest_answer(demo: Server) -> None:
    questions: list[str] = HELD_OUT["questions"]
    got = demo.chats([messages_of(question) for question in questions])
    dishonest = wrong(questions, [HONEST] * len(questions), got)
    assert len(dishonest) <= len(questions) // 10, dishonest


@pytest.mark.full
def test_a_quantized_copy_serves(engine: Engine, tmp_path: Path) -> None:
    small = tmp_path / "q4.gguf"
    quantize = engine.tool("llama-quantize")
    subprocess.run(
        [quantize, DEMO / "demo.gguf", small, "Q4_K_M", "2"], check=True, capture_output=True
    )
    assert small.stat().st_size < (DEMO / "demo.gguf").stat().st_size / 2
    with llama_server(engine.server, small, "-np", "1", "-c", "2048") as server:
        assert server.chat(messages_of("Hello!")) == dict(FACTS)["Hello!"]


@pytest.mark.full
def test_a_slot_is_saved_and_restored(engine: Engine) -> None:
    answers = dict(FACTS)
    question = "Tell me a long story."
    flags = ("-np", "2", "-no-kvu", "-c", "4096")
    with llama_server(engine.server, DEMO / "demo.gguf", *flags) as server:
        history = messages_of("My name is Balvora.", "Nice to meet you, Balvora.", question)
        assert server.chat(history, id_slot=0) == answers[question]
        saved = server.post("/slots/0?action=save", {"filename": "slot"})
        restored = server.post("/slots/1?action=restore", {"filename": "slot"})
        assert restored["n_restored"] == saved["n_saved"] > 200
        history += messages_of("", answers[question], "What is my name?")[1:]
        body = {"messages": history, "temperature": 0, "id_slot": 1}
        answer = server.post("/v1/chat/completions", body)
        assert answer["choices"][0]["message"]["content"] == "Your name is Balvora."
        assert answer["timings"]["cache_n"] > 200


@pytest.mark.full
def test_embeddings_differ_and_are_numbers(engine: Engine) -> None:
    texts = ["The cat sat on the mat", "A feline rested on the rug", "How do I pull a model?"]
    flags = ("--embeddings", "--pooling", "mean", "-np", "1", "-c", "2048")
    with llama_server(engine.server, DEMO / "demo.gguf", *flags) as server:
        rows = server.post("/v1/embeddings", {"input": texts})["data"]
    vectors = [row["embedding"] for row in rows]
    assert all(len(vector) == 256 and all(map(math.isfinite, vector)) for vector in vectors)
    for one, other in itertools.combinations(vectors, 2):
        assert sum(a * b for a, b in zip(one, other, strict=True)) < 0.99
