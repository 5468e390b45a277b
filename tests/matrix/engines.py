"""A server whose models differ in nothing but the chat template, and what its engines were sent."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gguf
import httpx

from myllm.engine.engine import Engine
from myllm.engine.fetch import provide_tree
from myllm.engine.progress import no_progress
from myllm.engine.source import find_source
from myllm.settings import load_settings
from scripts import random_model
from tests.matrix.families import BUILT_IN, DEMO, FAMILIES, JINJA
from tests.serving import Serving, serving, short_home

_CONTEXT: Final = 8192
# More than random weights add up to.
_LOUD: Final = 1000
_WORDS: Final = re.compile(r"\b(?:mark|thought)[A-Z]\w*")


def words_in(value: Any) -> set[str]:
    """Return the words of a conversation that are not to be lost."""
    return set(_WORDS.findall(json.dumps(value)))


@contextmanager
def models_with_templates(engine: Engine) -> Iterator[Serving]:
    """Serve a model for each family. One is loaded at a time, so that the memory stays small."""
    source = find_source(load_settings())
    # An engine from the cache may have been compiled by another checkout.
    provide_tree(source, load_settings().cache_dir, no_progress)
    with short_home() as home:
        weights = home / "weights.gguf"
        vocabulary = source.tree / "models" / "ggml-vocab-llama-spm.gguf"
        shape = replace(random_model.SHAPES["micro"], context=_CONTEXT)
        random_model.write(weights, shape, vocabulary)
        _silence(weights)
        for family in FAMILIES:
            if family != DEMO:
                _add(home / "models" / family, weights, source.tree / "models" / "templates")
        server = _telling_prompts(home, engine)
        sizes = {"context_size": _CONTEXT, "slots": 1, "max_loaded_models": 1}
        with serving(home, llama_server=server, **sizes) as running:
            yield running


def _silence(weights: Path) -> None:
    """Let a model end each answer at once: random words may be half of a tool call."""
    reader = gguf.GGUFReader(weights, "r+")
    end = int(reader.fields["tokenizer.ggml.eos_token_id"].contents())
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    tensors["token_embd.weight"][:, 0] = _LOUD
    tensors["output.weight"][:, 0] = 0
    tensors["output.weight"][end, 0] = _LOUD


def _add(folder: Path, weights: Path, templates: Path) -> None:
    folder.mkdir(parents=True)
    os.link(weights, folder / "weights.gguf")
    family = folder.name
    template = family if family in BUILT_IN else "chat.jinja"
    if template not in BUILT_IN:
        text = (templates / f"{JINJA[family]}.jinja").read_text()
        (folder / template).write_text(text)
    (folder / "config.json").write_text(json.dumps({"template": template}))


def _telling_prompts(home: Path, engine: Engine) -> Path:
    """Write a program that runs `engine` so that `/slots` tells the prompts."""
    program = home / "engine" / "llama-server"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nLLAMA_SERVER_SLOTS_DEBUG=1 exec "{engine.server}" "$@"\n')
    program.chmod(0o755)
    (program.parent / "llama-fit-params").symlink_to(engine.tool("llama-fit-params"))
    return program


class Prompts:
    """The prompts that the only engine of a server evaluates."""

    def __init__(self, server: Serving) -> None:
        transport = httpx.HTTPTransport(uds=str(server.engine_socket()))
        self._engine = httpx.Client(transport=transport, base_url="http://engine", timeout=30)

    def latest(self) -> str:
        """Return the prompt of the latest answer, as the engine read it."""
        [slot] = self._engine.get("/slots").raise_for_status().json()
        prompt: str = slot["prompt"]
        return prompt

    def rendered(self, body: dict[str, Any]) -> str | None:
        """Return what the template itself makes of a chat; None if it refuses."""
        answer = self._engine.post("/apply-template", json=body)
        return answer.json()["prompt"] if answer.status_code == 200 else None

    def takes_tools(self) -> bool:
        """Return whether the template shows the model its tools."""
        props = self._engine.get("/props").raise_for_status().json()
        return bool(props["chat_template_caps"]["supports_tools"])

    def close(self) -> None:
        self._engine.close()
