"""The memory estimate, chat templates by name, and the catalog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from myllm.errors import InvalidModel
from myllm.models.catalog import catalog
from myllm.models.gguf import read_header
from myllm.models.memory_estimate import estimate_mb, kv_bytes
from myllm.models.projector import Projector
from myllm.models.registry import Registry
from myllm.models.templates import ALIASES, BUILT_IN, OWN, flags_for
from tests.ggufs import write_header


def test_keys_and_values_follow_the_formula(tmp_path: Path) -> None:
    header = read_header(write_header(tmp_path / "model.gguf"))
    layers, heads_kv, head_size, both, f16 = 2, 2, 16, 2, 2
    per_token = layers * heads_kv * head_size * both * f16
    assert kv_bytes(header, 1024, 1) == 1024 * per_token
    assert kv_bytes(header, 1000, 4) == 4 * 1024 * per_token


def test_layers_without_keys_and_values_take_none(tmp_path: Path) -> None:
    whole = read_header(write_header(tmp_path / "whole.gguf"))
    half = read_header(write_header(tmp_path / "half.gguf", attention__head_count_kv=[2, 0]))
    assert kv_bytes(half, 1024, 1) * 2 == kv_bytes(whole, 1024, 1)


def test_a_running_state_does_not_grow_with_the_context(tmp_path: Path) -> None:
    state = {"conv_kernel": 4, "inner_size": 128, "state_size": 16, "group_count": 0}
    fields = {f"ssm__{key}": value for key, value in state.items()}
    none = {"attention__head_count": 0, "attention__head_count_kv": 0}
    header = read_header(write_header(tmp_path / "m.gguf", "mamba", **fields, **none))
    assert kv_bytes(header, 512, 2) == kv_bytes(header, 8192, 2) == 2 * 2 * (3 + 16) * 128 * 4


def test_an_estimate_grows_with_context_and_slots(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf", embedding_length=4096, block_count=32)
    model = Registry(tmp_path, tmp_path / "none").get("m")
    small, long, wide = (estimate_mb(model, *sizes) for sizes in ((512, 1), (8192, 1), (512, 16)))
    assert small < wide == long


def test_an_estimate_counts_the_projector(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf")
    model = Registry(tmp_path, tmp_path / "none").get("m")
    projector = Projector(tmp_path / "mmproj.gguf", ("image",), 50 * 2**20, "digest")
    seeing = replace(model, projector=projector)
    assert estimate_mb(seeing, 512, 1) == estimate_mb(model, 512, 1) + 50


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("llama3", ["--no-jinja", "--chat-template", "llama3"]),
        ("llama", ["--no-jinja", "--chat-template", "llama2"]),
        ("mistral", ["--no-jinja", "--chat-template", "mistral-v1"]),
        ("chatml", ["--chat-template", "chatml"]),
    ],
)
def test_template_names(tmp_path: Path, name: str, flags: list[str]) -> None:
    assert flags_for(name, tmp_path) == flags


def test_every_alias_leads_to_a_template(tmp_path: Path) -> None:
    assert set(ALIASES.values()) <= {*BUILT_IN, *OWN}
    for name in OWN:
        assert Path(flags_for(name, tmp_path)[1]).is_file()


def test_a_template_file_in_the_folder_of_the_model(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages }}")
    assert flags_for("own.jinja", tmp_path) == ["--chat-template-file", str(file)]


@pytest.mark.parametrize("name", ["../own.jinja", "/etc/own.jinja", "sub/own.jinja", "link.jinja"])
def test_a_template_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        (place / "own.jinja").write_text("{{ messages }}")
    (folder / "link.jinja").symlink_to(tmp_path / "own.jinja")
    with pytest.raises(InvalidModel, match="must be a file in the model's folder"):
        flags_for(name, folder)


def test_an_unknown_template_makes_the_model_unusable(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf")
    (tmp_path / "m" / "config.json").write_text('{"template": "lama3"}')
    with pytest.raises(InvalidModel, match=r"template 'lama3' is unknown.*llama3"):
        Registry(tmp_path).get("m")


def test_without_a_name_the_engine_uses_the_gguf_s_template(tmp_path: Path) -> None:
    write_header(tmp_path / "m" / "m.gguf")
    assert Registry(tmp_path).get("m").chat.flags == ()


def test_the_catalog_has_five_models(tmp_path: Path) -> None:
    assert list(catalog()) == ["tinyllama-1.1b", "phi-2", "llama3-8b", "mistral-7b", "qwen-1.8b"]
    for entry in catalog().values():
        assert entry.file.lower().endswith("q4_k_m.gguf")
        assert entry.repo.count("/") == 1
        assert entry.size_mb > 100
        if entry.template is not None:
            flags_for(entry.template, tmp_path)
