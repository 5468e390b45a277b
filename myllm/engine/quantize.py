"""Copies of the demo model in common quantizations, for checking an engine.

`llama-quantize` next to the engine writes all of them. Without it the `gguf` package (the extra
`check`) writes those that it supports. Without that package only the original remains.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myllm.engine.engine import Engine
from myllm.engine.process import run_and_read
from myllm.errors import EngineError, EngineMissing

if TYPE_CHECKING:
    from gguf import GGUFReader

DEMO = Path(str(files("myllm"))) / "models" / "builtin" / "demo" / "demo.gguf"
ORIGINAL = "F16"
QUANTIZATIONS = ("Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_XS", ORIGINAL, "BF16")
# Those that Python's gguf package can write.
_KNOWN_TO_GGUF = ("Q4_0", "Q4_1", "Q8_0", "BF16")
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Quantizer:
    """The name of what writes the copies, and the quantizations that it can write."""

    name: str
    writes: tuple[str, ...]
    program: Path | None = None

    def write(self, quantization: str, folder: Path) -> Path:
        """The demo model in `quantization`; the original itself, or a new file in `folder`.

        Raises EngineError with the program's own words.
        """
        if quantization == ORIGINAL:
            return DEMO
        target = folder / f"demo-{quantization}.gguf"
        if self.program is not None:
            _run([str(self.program), str(DEMO), str(target), quantization])
        else:
            _write_with_gguf(quantization, target)
        return target


def find_quantizer(engine: Engine) -> Quantizer:
    """The best quantizer on this machine for `engine`."""
    try:
        return Quantizer("llama-quantize", QUANTIZATIONS, engine.tool("llama-quantize"))
    except EngineMissing:
        pass
    try:
        import gguf  # noqa: F401
    except ImportError:
        return Quantizer("no quantizer", (ORIGINAL,))
    return Quantizer("Python's gguf", (*_KNOWN_TO_GGUF, ORIGINAL))


def _run(command: Sequence[str]) -> None:
    try:
        done = run_and_read(command, _TIMEOUT_S)
    except OSError as failure:
        raise EngineError(f"{command[0]} cannot be run: {failure.strerror or failure}") from failure
    except subprocess.TimeoutExpired as hang:
        raise EngineError(f"llama-quantize did not end in {_TIMEOUT_S:.0f} s") from hang
    if done.returncode != 0:
        last = " / ".join(done.stdout.strip().splitlines()[-2:])
        raise EngineError(f"llama-quantize ended with {done.returncode}: {last[:200]}")


def _write_with_gguf(quantization: str, target: Path) -> None:
    """Quantize every matrix of the demo model and keep vectors, as llama-quantize does."""
    import gguf

    reader = gguf.GGUFReader(DEMO)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    _copy_metadata(reader, writer)
    kind = gguf.GGMLQuantizationType[quantization]
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, data)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_metadata(reader: GGUFReader, writer: Any) -> None:
    import gguf

    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind, *rest = field.types
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, field.contents(), kind, sub_type=rest[-1])
        else:
            writer.add_key_value(name, field.contents(), kind)
