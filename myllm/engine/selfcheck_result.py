"""The result of the self-check of an engine on this CPU, and where it is stored."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass

from myllm.engine.engine import Engine
from myllm.engine.hardware import cpu_identity
from myllm.engine.probe import file_stamp
from myllm.settings import Settings


@dataclass(frozen=True)
class Verdict:
    """`faults` has a sentence for each quantization of `checked` that failed, `undecided` one for
    each that took too long.

    `quantizer` is the name of what wrote the quantized models; `at` is a Unix time.
    """

    checked: tuple[str, ...]
    faults: dict[str, str]
    undecided: dict[str, str]
    quantizer: str
    seconds: float
    at: float

    @property
    def passed(self) -> bool:
        """Whether the engine can be trusted on this CPU."""
        return not self.faults

    def summary(self) -> str:
        """One line for the user."""
        if self.undecided and self.passed:
            return f"could not be checked, for the machine is too busy: {_joined(self.undecided)}"
        if self.passed:
            missing = "" if self.quantizer == "llama-quantize" else f" (with {self.quantizer})"
            return f"answers correctly in {', '.join(self.checked)}{missing}"
        return _joined(self.faults)


def _joined(reasons: dict[str, str]) -> str:
    """Each reason once, with the quantizations to which it applies."""
    quantizations: dict[str, list[str]] = {}
    for quantization, reason in reasons.items():
        quantizations.setdefault(reason, []).append(quantization)
    return "; ".join(f"{', '.join(which)}: {reason}" for reason, which in quantizations.items())


class Verdicts:
    """The stored verdicts, per binary and CPU: in the cache, or in the state folder if the cache is
    read-only (as in a container)."""

    def __init__(self, settings: Settings) -> None:
        self._folders = (
            settings.cache_dir.expanduser() / "checks",
            settings.state_dir.expanduser() / "engine-checks",
        )

    def get(self, engine: Engine) -> Verdict | None:
        """The verdict on this file on this CPU; None if it was never checked."""
        for folder in self._folders:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                known = json.loads((folder / _name(engine)).read_text())
                return Verdict(**{**known, "checked": tuple(known["checked"])})
        return None

    def keep(self, engine: Engine, verdict: Verdict) -> None:
        """Store `verdict` if it is conclusive.

        If neither folder is writable, the next start checks again.
        """
        if verdict.undecided and verdict.passed:
            return
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                aside = folder / f".{_name(engine)}.{os.getpid()}"
                aside.write_text(json.dumps(asdict(verdict)))
                aside.replace(folder / _name(engine))
                return


def _name(engine: Engine) -> str:
    facts = f"{file_stamp(engine.server)}\0{cpu_identity()}"
    return f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.json"
