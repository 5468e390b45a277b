"""Chat templates by name: the values of `template` in a model's `config.json`.

A name is an alias below, a template built into llama.cpp (`src/llama-chat.cpp`), or a `.jinja`
file in the model's folder. Without a name the engine uses the template in the GGUF.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from myllm.errors import InvalidModel
from myllm.models.read_errors import unreadable

_OWN: Final = Path(__file__).parent / "chat_templates"

ALIASES: Final = {
    "llama": "llama2",
    "llama-2": "llama2",
    "llama-3": "llama3",
    "mistral": "mistral-v1",
    "phi": "phi2",
    "phi-2": "phi2",
    "phi-3": "phi3",
    "qwen": "chatml",
    "qwen2": "chatml",
    "tinyllama": "zephyr",
}
"""Other common names of templates."""

OWN: Final = ("phi2",)
"""Templates that llama.cpp lacks; each is a file next to this one."""

_THOUGHTS: Final = (
    "think>", "[THINK]", "<|channel|>", "enable_thinking", "reasoning_content",
)  # fmt: skip

BUILT_IN: Final = (
    "bailing",
    "bailing-think",
    "bailing2",
    "chatglm3",
    "chatglm4",
    "chatml",
    "command-r",
    "deepseek",
    "deepseek2",
    "deepseek3",
    "deepseek-ocr",
    "exaone-moe",
    "exaone3",
    "exaone4",
    "falcon3",
    "gemma",
    "gigachat",
    "glmedge",
    "gpt-oss",
    "granite",
    "granite-4.0",
    "granite-4.1",
    "grok-2",
    "hunyuan-dense",
    "hunyuan-moe",
    "hunyuan-vl",
    "kimi-k2",
    "llama2",
    "llama2-sys",
    "llama2-sys-bos",
    "llama2-sys-strip",
    "llama3",
    "llama4",
    "megrez",
    "minicpm",
    "mistral-v1",
    "mistral-v3",
    "mistral-v3-tekken",
    "mistral-v7",
    "mistral-v7-tekken",
    "monarch",
    "openchat",
    "orion",
    "pangu-embedded",
    "phi3",
    "phi4",
    "rwkv-world",
    "seed_oss",
    "smolvlm",
    "solar-open",
    "vicuna",
    "vicuna-orca",
    "yandex",
    "zephyr",
)


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template, as it was when the model's files were read.

    `flags` select it on llama-server's command line; they are empty for the GGUF's own template.
    `text` is its Jinja source, which llama.cpp's built-in templates lack.
    """

    flags: tuple[str, ...] = ()
    text: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether neither config.json nor the GGUF has one."""
        return not self.flags and self.text is None

    @cached_property
    def has_thoughts(self) -> bool:
        """Whether the template marks what the model thinks before it answers.

        llama.cpp's built-in templates do not separate thoughts from answers.
        """
        return any(mark in (self.text or "") for mark in _THOUGHTS)

    @property
    def leaves_answers_open(self) -> bool:
        """Whether the template leaves a last assistant message open, to be continued.

        The built-in templates, which are not Jinja, end every message.
        """
        return "--no-jinja" not in self.flags


def read_template(name: str | None, folder: Path, of_gguf: str | None) -> ChatTemplate:
    """The template that the `config.json` of `folder` names, else the one in the GGUF.

    Raises InvalidModel when the template is unknown, or its file cannot be read as UTF-8.
    """
    if name is None:
        return ChatTemplate(text=of_gguf)
    flags = tuple(flags_for(name, folder))
    file = flags[1] if flags[0] == "--chat-template-file" else None
    return ChatTemplate(flags, None if file is None else _read(Path(file)))


def flags_for(template: str, folder: Path) -> list[str]:
    """The flags that make llama-server use `template`, named in the `config.json` of `folder`.

    A built-in name needs `--no-jinja`: with Jinja, llama-server takes every name except `chatml`
    for the text of a template, and each prompt would be that one word.
    """
    if template.endswith(".jinja"):
        return ["--chat-template-file", str(_file_inside(template, folder))]
    name = ALIASES.get(template, template)
    if name in OWN:
        return ["--chat-template-file", str(_OWN / f"{name}.jinja")]
    if name == "chatml":
        return ["--chat-template", name]
    if name in BUILT_IN:
        return ["--no-jinja", "--chat-template", name]
    known = ", ".join(sorted({*ALIASES, *OWN, *BUILT_IN}))
    raise InvalidModel(
        f"{folder / 'config.json'}: template '{template}' is unknown; it may be a .jinja file in"
        f" the same folder, or one of {known}"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidModel(f"{path} is not a text in UTF-8") from None
    except OSError as failure:
        raise unreadable(path, failure) from failure


def _file_inside(template: str, folder: Path) -> Path:
    path = folder / template
    inside = Path(template).name == template and path.resolve().parent == folder.resolve()
    if not inside:
        raise InvalidModel(
            f"{folder / 'config.json'}: template '{template}' must be a file in the model's folder"
        )
    if not path.is_file():
        raise InvalidModel(f"{folder / 'config.json'}: template file {path} does not exist")
    return path
