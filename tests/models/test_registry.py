"""The registry: what it lists, what it refuses, and what removing does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from myllm.errors import AliasGiven, InvalidModel, InvalidRequest, ModelNotFound
from myllm.models.registry import Registry
from tests.ggufs import write_header, write_split
from tests.projectors import write_projector

NOBODY = 65534


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "models").mkdir()
    return Registry(tmp_path / "models", tmp_path / "builtin")


def add(registry: Registry, name: str, config: Any = None, **fields: Any) -> Path:
    """Put a model on disk and return its folder."""
    folder = registry.models_dir / name
    write_header(folder / f"{name}.gguf", **fields)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "config.json").write_text(text)
    return folder


def names(registry: Registry) -> list[str]:
    return [model.name for model in registry.list()]


def test_a_missing_model_folder_is_an_empty_one(tmp_path: Path) -> None:
    assert Registry(tmp_path / "none", tmp_path / "none").list() == []


def test_a_model_without_a_config_is_described_by_its_header(registry: Registry) -> None:
    folder = add(registry, "tiny")
    model = registry.get("tiny")
    assert (model.path, model.gguf) == (folder, folder / "tiny.gguf")
    assert (model.family, model.architecture, model.quantization) == ("llama", "llama", "Q4_K_M")
    assert model.size_bytes == model.gguf.stat().st_size
    assert model.config.template is None
    assert model.digest
    assert not model.builtin


def test_a_config_overrides_the_header(registry: Registry) -> None:
    parameters = {"temperature": 0, "top_p": 0.5, "stop": ["</s>"], "seed": 7}
    add(
        registry,
        "tiny",
        {
            "name": "something else",
            "family": "fam",
            "quantization": "Q",
            "template": "chatml",
            "description": "words",
            "parameters": parameters,
            "engine": {"slots": 2, "threads": 3, "gpu_layers": 0},
            "unknown": True,
            "context_size": None,
        },
    )
    model = registry.get("tiny")
    assert (model.name, model.family, model.quantization) == ("tiny", "fam", "Q")
    config = model.config
    assert (config.template, config.description) == ("chatml", "words")
    assert dict(config.parameters) == parameters
    assert (config.engine.slots, config.engine.threads, config.engine.gpu_layers) == (2, 3, 0)


@pytest.mark.parametrize(
    ("config", "cap", "context"),
    [
        ({}, 1024, 1024),
        ({}, 4096, 2048),
        ({"context_size": 512}, 4096, 512),
        ({"context_size": 9000}, 1024, 2048),
    ],
)
def test_the_context_is_never_more_than_trained_for(
    registry: Registry, config: dict[str, int], cap: int, context: int
) -> None:
    add(registry, "tiny", config)
    assert registry.get("tiny").context_for(cap) == context


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"context_size": NaN}', "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ({"context_size": "big"}, "context_size must be a whole number"),
        ({"context_size": True}, "context_size must be a whole number"),
        ({"context_size": 0}, "context_size must be a whole number between 1 and"),
        ({"template": 3}, "template must be a text"),
        ({"parameters": []}, "parameters must be a JSON object"),
        ({"parameters": {"temperature": 2.5}}, "temperature must be a number between 0.0 and 2.0"),
        ({"parameters": {"temperature": "hot"}}, "parameters.temperature must be a number"),
        ({"parameters": {"top_p": 1.5}}, "top_p must be a number between 0.0 and 1.0"),
        ({"parameters": {"top_k": -1}}, "top_k must be a whole number"),
        ({"parameters": {"max_tokens": 0}}, "max_tokens must be a whole number"),
        ({"parameters": {"stop": "x"}}, "stop must be a list"),
        ({"parameters": {"stop": [""]}}, "stop must be a list"),
        ({"parameters": {"repeat_penalty": -1}}, "repeat_penalty must be a number of at least"),
        ({"parameters": {"presence_penalty": 3}}, "presence_penalty must be a number between"),
        ({"parameters": {"temprature": 1}}, "parameters.temprature is unknown; known are"),
        ({"engine": {"slots": 0}}, "engine.slots must be a whole number between 1 and 64"),
        ({"engine": {"slot": 1}}, "engine.slot is unknown"),
    ],
)
def test_a_wrong_config_is_refused_with_file_and_key(
    registry: Registry, config: Any, says: str
) -> None:
    folder = add(registry, "tiny", config)
    with pytest.raises(InvalidModel) as failure:
        registry.get("tiny")
    assert str(folder / "config.json") in failure.value.detail
    assert says in failure.value.detail


def test_a_broken_model_does_not_hide_the_others(registry: Registry) -> None:
    add(registry, "good")
    broken = add(registry, "broken") / "broken.gguf"
    broken.write_bytes(b"nonsense")
    (registry.models_dir / "empty").mkdir()
    listed = {model.name: model for model in registry.list()}
    assert listed["good"].problem is None
    assert "is not a GGUF file" in (listed["broken"].problem or "")
    assert "holds no GGUF file" in (listed["empty"].problem or "")
    assert listed["broken"].context_for(4096) == 4096


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", "a/b", ".hidden", "a\\b", "x\0", "a" * 129, "é", "good\n"]
)
def test_a_name_never_leads_outside(registry: Registry, name: str) -> None:
    add(registry, "good")
    write_header(registry.models_dir.parent / "x" / "x.gguf")
    with pytest.raises(ModelNotFound, match="Available models: good"):
        registry.get(name)
    with pytest.raises(ModelNotFound):
        registry.remove(name)
    assert names(registry) == ["good"]


def test_other_entries_of_the_folder_are_not_models(registry: Registry) -> None:
    (registry.models_dir / "loose.gguf").write_bytes(b"")
    (registry.models_dir / ".staging" / "x").mkdir(parents=True)
    (registry.models_dir / "with space").mkdir()
    assert registry.list() == []


def test_a_split_model_is_one_model(registry: Registry) -> None:
    parts = write_split(registry.models_dir / "big")
    model = registry.get("big")
    assert model.files == tuple(parts)
    assert model.gguf == parts[0]
    assert model.size_bytes == sum(part.stat().st_size for part in parts)
    assert model.header.parameter_count == 2 * 300 * 64 + 2 * 32 * 32
    parts[1].unlink()
    with pytest.raises(InvalidModel, match=r"lacks big-00002-of-00003\.gguf"):
        registry.get("big")


def test_two_models_in_one_folder_are_refused(registry: Registry) -> None:
    write_header(add(registry, "tiny") / "other.gguf")
    with pytest.raises(InvalidModel, match="more than one model"):
        registry.get("tiny")


def test_a_projector_adds_the_media_that_a_model_understands(registry: Registry) -> None:
    file = add(registry, "tiny") / "mmproj-tiny.gguf"
    assert registry.get("tiny").input == ("text",)
    write_projector(file)
    assert registry.get("tiny").input == ("text", "image")
    write_projector(file, sees=False, hears=True)
    assert registry.get("tiny").input == ("text", "audio")
    write_projector(file, hears=True)
    model = registry.get("tiny")
    assert model.input == ("text", "image", "audio")
    assert model.projector is not None
    assert model.projector.path == file
    assert 0 < file.stat().st_size - model.projector.size_bytes < 10_000


def test_a_truncated_or_wrong_projector_is_refused(registry: Registry) -> None:
    file = write_projector(add(registry, "tiny") / "mmproj-tiny.gguf")
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(InvalidModel, match=r"mmproj-tiny\.gguf is truncated"):
        registry.get("tiny")
    for length in range(0, len(content) - 100, 9973):
        file.write_bytes(content[:length])
        os.utime(file, ns=(length, length))  # older than a file that is being written
        with pytest.raises(InvalidModel, match=r"mmproj-tiny\.gguf is"):
            registry.get("tiny")
    write_header(file)
    with pytest.raises(InvalidModel, match="named like a projector but is not one"):
        registry.get("tiny")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "own.jinja").write_bytes(b"\xff"), "own.jinja is not a text in UTF-8"),
        (lambda f: (f / "own.jinja").unlink(), "own.jinja does not exist"),
        (lambda f: os.mkfifo(f / "config.json"), "config.json is not a regular file"),
        (lambda f: (f / "config.json").mkdir(), "config.json is not a regular file"),
        (lambda f: (f / "config.json").write_text('{"family": "\\ud800"}'), "is not valid JSON"),
        (lambda f: os.mkfifo(f / "b.gguf"), None),
        (lambda f: Path(os.fsencode(f).decode() + "/\udcff.gguf").touch(), "more than one model"),
    ],
)
def test_a_broken_model_affects_no_other(
    registry: Registry, spoil: Callable[[Path], object], says: str | None
) -> None:
    add(registry, "good")
    folder = add(registry, "spoilt")
    (folder / "own.jinja").write_text("{{ messages }}")
    if says and says.startswith("own.jinja"):
        (folder / "config.json").write_text('{"template": "own.jinja"}')
    spoil(folder)
    problems = {model.name: model.problem for model in registry.list()}
    json.dumps(problems, ensure_ascii=False).encode()  # as responses contain it
    assert problems["good"] is None
    if says is None:
        assert problems["spoilt"] is None
    else:
        assert says in (problems["spoilt"] or "")


def test_a_running_model_keeps_only_the_aliases_that_lead_to_it(registry: Registry) -> None:
    add(registry, "b", {"aliases": ["one", "two:latest", "three", "c"]})
    add(registry, "a", {"aliases": ["three"]})
    add(registry, "c")
    assert registry.aliases_of(registry.get("b")) == ("one", "two")
    assert {"a": ("three",), "b": ("one", "two"), "c": ()}.items() <= registry.aliases().items()


def test_a_folder_that_cannot_be_moved_is_not_removed(registry: Registry) -> None:
    folder = add(registry, "tiny")
    (registry.models_dir / ".removed").write_text("")
    with pytest.raises(InvalidModel, match="cannot be removed"):
        registry.remove("tiny")
    assert (folder / "tiny.gguf").exists()


def test_changes_on_disk_are_seen(registry: Registry) -> None:
    folder = add(registry, "tiny")
    before = registry.get("tiny")
    assert registry.get("tiny") is before
    (folder / "config.json").write_text('{"family": "new"}')
    assert registry.get("tiny").family == "new"
    write_header(folder / "tiny.gguf", context_length=512)
    os.utime(folder / "tiny.gguf", ns=(1, 1))
    assert registry.get("tiny").header.context_length == 512


def test_a_config_that_is_being_rewritten_changes_nothing_yet(registry: Registry) -> None:
    config = add(registry, "mine", {"context_size": 512}) / "config.json"
    assert registry.get("mine").config.context_size == 512
    config.write_text("")
    assert registry.get("mine").config.context_size == 512
    config.write_text('{"context_size": 1024}')
    assert registry.get("mine").config.context_size == 1024
    config.write_text("")
    a_while_ago = config.stat().st_mtime_ns - 10_000_000_000
    os.utime(config, ns=(a_while_ago, a_while_ago))
    with pytest.raises(InvalidModel, match="not valid JSON"):
        registry.get("mine")


def test_the_user_s_model_wins_over_a_built_in_one(registry: Registry, tmp_path: Path) -> None:
    write_header(tmp_path / "builtin" / "demo" / "demo.gguf")
    assert registry.get("demo").builtin
    add(registry, "demo", {"family": "mine"})
    assert registry.get("demo").family == "mine"
    registry.remove("demo")
    assert registry.get("demo").builtin
    with pytest.raises(InvalidRequest, match="comes with MyLLM"):
        registry.remove("demo")


def test_removing_deletes_the_folder_and_nothing_else(registry: Registry) -> None:
    add(registry, "tiny")
    add(registry, "other")
    registry.remove("tiny")
    assert names(registry) == ["other"]
    assert [path.name for path in registry.models_dir.iterdir()] == ["other"]
    with pytest.raises(ModelNotFound):
        registry.remove("tiny")


def test_names_may_have_the_tag_that_ollama_s_clients_append(registry: Registry) -> None:
    add(registry, "tiny", {"aliases": ["other", "tagged:latest", "sized:7b"]})
    for name in ("tiny", "other", "tagged", "sized:7b"):
        assert registry.get(name).name == "tiny"
        assert registry.get(f"{name}:latest").name == "tiny"
        assert registry.name_of(f"{name}:latest") == "tiny"
    for name in ("tiny:7b", "tiny:latest:latest", ":latest", "../models/tiny:latest"):
        with pytest.raises(ModelNotFound):
            registry.get(name)
    assert registry.name_of("gone:latest") == "gone"


def test_an_alias_cannot_be_removed(registry: Registry) -> None:
    add(registry, "tiny", {"aliases": ["other"]})
    for name in ("other", "other:latest"):
        with pytest.raises(AliasGiven, match="'other' is an alias of the model 'tiny'"):
            registry.remove(name)
    assert registry.removable("tiny:latest") == "tiny"
    registry.remove("tiny:latest")
    assert registry.list() == []


def test_a_broken_model_can_be_removed(registry: Registry) -> None:
    (registry.models_dir / "broken").mkdir()
    registry.remove("broken")
    assert registry.list() == []


def test_removing_follows_no_links(registry: Registry, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    weights = write_header(elsewhere / "linked.gguf")
    (registry.models_dir / "folder-link").symlink_to(elsewhere)
    (registry.models_dir / "file-link").mkdir()
    (registry.models_dir / "file-link" / "x.gguf").symlink_to(weights)
    assert registry.get("folder-link").problem is None
    registry.remove("folder-link")
    registry.remove("file-link")
    assert registry.list() == []
    assert weights.exists()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that any user can reach, which pytest's is not."""
    path = Path(tempfile.mkdtemp(prefix="ml-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


LOOK = """
import os, sys
from pathlib import Path
from myllm.errors import MyLLMError
from myllm.models.registry import Registry
if os.geteuid() == 0:
    os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    for model in Registry(Path(sys.argv[1]), Path("/nonexistent")).list():
        print(model.name, model.problem)
except MyLLMError as failure:
    print(failure.detail)
"""


def look(models_dir: Path) -> str:
    """What the registry lists for a user who is not root, who may read everything."""
    command = [sys.executable, "-c", LOOK, str(models_dir), str(NOBODY)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_an_unreadable_model_is_listed_with_the_reason(open_dir: Path) -> None:
    add(Registry(open_dir), "good")
    secret_folder = add(Registry(open_dir), "secret-folder")
    secret_file = add(Registry(open_dir), "secret-file") / "secret-file.gguf"
    secret_folder.chmod(0)
    secret_file.chmod(0)
    said = look(open_dir)
    secret_folder.chmod(0o755)
    assert "good None" in said
    assert f"secret-folder {secret_folder} cannot be read: Permission denied; let the user" in said
    assert f"secret-file {secret_file} cannot be read: Permission denied" in said


def test_a_link_into_an_unreadable_place_hides_nothing(open_dir: Path) -> None:
    add(Registry(open_dir), "good")
    (open_dir / "closed" / "inner").mkdir(parents=True)
    (open_dir / "link").symlink_to(open_dir / "closed" / "inner")
    (open_dir / "closed").chmod(0)
    said = look(open_dir)
    (open_dir / "closed").chmod(0o755)
    assert "good None" in said


def test_a_model_one_folder_too_deep_is_found(registry: Registry) -> None:
    write_header(registry.models_dir / "org" / "repo" / "x.gguf")
    with pytest.raises(InvalidModel, match=r"no GGUF file; move the one in .*/org/repo"):
        registry.get("org")


def test_an_unreadable_models_folder_is_an_error(open_dir: Path) -> None:
    models_dir = open_dir / "models"
    models_dir.mkdir(mode=0)
    assert f"the model folder {models_dir} cannot be read: Permission denied" in look(models_dir)
