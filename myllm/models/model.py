"""One model folder: which of its files form the model, and all that is known about it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from myllm.errors import InvalidModel
from myllm.models.config import ModelConfig
from myllm.models.config_file import read_config
from myllm.models.gguf import read_projector
from myllm.models.gguf_header import UNKNOWN, Header
from myllm.models.projector import Projector
from myllm.models.read_errors import PULL_AGAIN, unreadable
from myllm.models.templates import ChatTemplate, read_template

CONFIG: Final = "config.json"
PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
"""How llama.cpp names the parts of a split model."""


@dataclass(frozen=True)
class Model:
    """A model on disk. `files` are its GGUF parts in order, `gguf` the first of them.

    `size_bytes` is the sum over `files`, `modified_at` the time (Unix, in seconds) at which `gguf`
    was last written. `config` is what config.json says, `chat` the template that it or the GGUF
    names. `problem` is None, or the sentence on why the model cannot be used; then `config` and
    `header` are empty, and there may be no files.

    It holds everything that serving needs, so a running model does not depend on its folder.
    """

    name: str
    path: Path
    gguf: Path
    files: tuple[Path, ...]
    size_bytes: int
    header: Header
    config: ModelConfig = field(default_factory=ModelConfig)
    modified_at: float = 0.0
    chat: ChatTemplate = field(default_factory=ChatTemplate)
    projector: Projector | None = None
    builtin: bool = False
    problem: str | None = None

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as `llama` or `qwen2`."""
        return self.header.architecture

    @property
    def family(self) -> str:
        """The family that config.json names, else the architecture."""
        return self.config.family or self.header.architecture

    @property
    def quantization(self) -> str:
        """The quantization that config.json names, else the one in the header."""
        return self.config.quantization or self.header.quantization

    @property
    def digest(self) -> str:
        """Changes when the model's files do; cheap, see `gguf.read_header`. Empty if unknown."""
        return self.header.digest

    @property
    def is_embedding_only(self) -> bool:
        """Whether it turns texts into vectors and is not meant to generate."""
        return self.header.is_embedding_only

    @property
    def thinks(self) -> bool:
        """Whether it may think before it answers, in a part of its own."""
        return self.chat.has_thoughts

    @property
    def chat_problem(self) -> str | None:
        """Why it cannot chat; None if it can.

        Without a chat template the engine would fall back to ChatML, whose markers such a model
        was not trained with.
        """
        if self.is_embedding_only:
            return f"Model '{self.name}' does not converse"
        if self.chat.is_missing:
            return (
                f"Model '{self.name}' has no chat template, so it can complete a prompt (POST "
                "/api/generate) but not chat; if you know which template it needs, name it as "
                f"\"template\" in its config.json, and 'myllm reload {self.name}' if it is loaded"
            )
        return None

    @property
    def input(self) -> tuple[str, ...]:
        """What a message to it may contain: `text`, and with a projector `image` or `audio`."""
        return ("text", *(self.projector.media if self.projector else ()))

    def context_for(self, default_cap: int) -> int:
        """Tokens that one conversation gets: those in config.json, else `default_cap`, but never
        more than the model was trained for."""
        wanted = self.config.context_size or default_cap
        return min(wanted, self.header.context_length or wanted)


HeaderReader = Callable[[Path], Header]


def load_model(folder: Path, builtin: bool, read_header: HeaderReader) -> Model:
    """Read the model in `folder`. Raises InvalidModel with the reason why it is unusable."""
    config = read_config(folder / CONFIG)
    files, projector = find_files(folder)
    header = _whole_header(files, [read_header(file) for file in files])
    status = [file.stat() for file in files]
    return Model(
        name=folder.name,
        path=folder,
        gguf=files[0],
        files=files,
        size_bytes=sum(each.st_size for each in status),
        header=header,
        config=config,
        modified_at=status[0].st_mtime,
        # An unknown template is an error now, not at the first request.
        chat=read_template(config.template, folder, header.chat_template),
        projector=read_projector(projector) if projector else None,
        builtin=builtin,
    )


def as_unicode(text: str) -> str:
    """`text` with escapes for bytes that are not Unicode, which file names may contain."""
    return text.encode("utf-8", "backslashreplace").decode()


def broken_model(folder: Path, builtin: bool, problem: str) -> Model:
    """The model to list for a folder that cannot be used."""
    return Model(
        name=folder.name,
        path=folder,
        gguf=folder,
        files=(),
        size_bytes=0,
        header=UNKNOWN,
        builtin=builtin,
        problem=as_unicode(problem),
    )


def find_files(folder: Path) -> tuple[tuple[Path, ...], Path | None]:
    """The GGUF files of the one model in `folder`, in order, and its projector if it has one."""
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() == ".gguf"
            and not path.name.startswith(".")
            and (
                path.is_file() or not path.exists()
            )  # reading a dangling link raises a clear error
        )
    except OSError as failure:
        raise unreadable(folder, failure) from failure
    projectors = [path for path in found if path.name.lower().startswith("mmproj")]
    candidates = [path for path in found if path not in projectors]
    if not candidates:
        raise InvalidModel(f"{folder} holds no GGUF file; {_where_to_get_one(folder)}")
    first = PART.fullmatch(candidates[0].name)
    expected = part_names(candidates[0].name) if first else [candidates[0].name]
    names = [path.name for path in candidates]
    if extra := [name for name in names if name not in expected]:
        raise InvalidModel(
            f"{folder} holds more than one model ({candidates[0].name}, {extra[0]}); give each a"
            " folder of its own"
        )
    if missing := [name for name in expected if name not in names]:
        raise InvalidModel(f"{folder} lacks {missing[0]}, a part of the model; {PULL_AGAIN}")
    return tuple(folder / name for name in expected), projectors[0] if projectors else None


def _where_to_get_one(folder: Path) -> str:
    """What to do about a folder without a GGUF; other programs keep theirs one folder deeper."""
    deeper = next((path for path in sorted(folder.glob("*/*.gguf"))), None)
    if deeper is None:
        return "put one into it, or remove the folder"
    return f"move the one in {deeper.parent} into it"


def part_names(name: str) -> list[str]:
    """All parts of the split model to which the file `name` belongs; else just `name`."""
    match = PART.fullmatch(name)
    if match is None:
        return [name]
    count = int(match["count"])
    suffix = name[-len(".gguf") :]
    return [f"{match['stem']}-{n:05}-of-{count:05}{suffix}" for n in range(1, count + 1)]


def _whole_header(files: tuple[Path, ...], headers: list[Header]) -> Header:
    """The first part's header, with the numbers of all parts added up."""
    first = headers[0]
    if not first.architecture:
        raise InvalidModel(f"{files[0]} does not specify its architecture")
    if first.split_count > 1 and first.split_count != len(files):
        raise InvalidModel(
            f"{files[0]} is one of {first.split_count} parts, of which {len(files)} are there"
        )
    if len(headers) == 1:
        return first
    joined = hashlib.sha256("".join(header.digest for header in headers).encode())
    return replace(
        first,
        parameter_count=sum(header.parameter_count for header in headers),
        tensor_bytes=sum(header.tensor_bytes for header in headers),
        digest=joined.hexdigest(),
    )
