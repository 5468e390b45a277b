"""What the error for a prompt that fills the context advises."""

from __future__ import annotations

from pathlib import Path

import pytest

from myllm.gateway.prompt.too_long import too_long
from myllm.models.registry import Registry
from myllm.supervisor.footprints import growth_mb
from myllm.supervisor.spec import InstanceKey, InstanceSpec, Role
from tests.ggufs import write_header


def spec_of(
    models: Path, context_size: int, role: Role = "generate", **fields: object
) -> InstanceSpec:
    write_header(models / "tiny" / "tiny.gguf", **fields)
    model = Registry(models).get("tiny")
    return InstanceSpec(InstanceKey("tiny", role), model, context_size, slots=2, batch=128)


@pytest.mark.parametrize(
    ("trained", "tokens", "size"),
    [
        (32768, 1024, 2048),  # a quarter is left for the answer
        (32768, 1536, 2048),
        (32768, 1537, 4096),
        (32768, 20_000, 32768),
        (3000, 2310, 3000),
        (0, 100_000, 262_144),  # unknown
    ],
)
def test_it_names_a_context_that_holds_prompt_and_answer(
    tmp_path: Path, trained: int, tokens: int, size: int
) -> None:
    spec = spec_of(tmp_path, 1024, context_length=trained or None)
    error = too_long(spec, tokens)
    more = max(1, growth_mb(spec, size))
    assert error.detail == (
        f'Prompt too long for context window (1024 tokens): {tokens} tokens; set "context_size": '
        f"{size} in the config.json of model 'tiny', which takes about {more} MB more memory, "
        "and 'myllm reload tiny'"
    )
    assert (error.prompt_tokens, error.context_size) == (tokens, 1024)


def test_much_memory_is_told_in_gigabytes(tmp_path: Path) -> None:
    many_layers = {"block_count": 64, "attention__head_count_kv": 4}
    spec = spec_of(tmp_path, 1024, context_length=131_072, **many_layers)
    more = growth_mb(spec, 131_072)
    assert more > 1024
    assert f"which takes about {more / 1024:.1f} GB more memory" in too_long(spec, 90_000).detail


@pytest.mark.parametrize("context_size", [1024, 2048])
def test_no_setting_gives_more_than_the_model_was_trained_for(
    tmp_path: Path, context_size: int
) -> None:
    error = too_long(spec_of(tmp_path, context_size, context_length=2048), 2048)
    assert error.detail.endswith(
        ": 2048 tokens; the model was trained for at most 2048 tokens, so shorten the prompt"
    )


def test_an_engine_that_embeds_has_no_such_setting(tmp_path: Path) -> None:
    assert too_long(spec_of(tmp_path, 1024, "embed"), 2000).detail.endswith(": 2000 tokens")
