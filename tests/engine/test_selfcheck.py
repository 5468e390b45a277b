"""The self-check, with the real engine and with engines made to fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from myllm.engine import hardware, selfcheck, selfcheck_result
from myllm.engine.doctor_checks import engine_checks
from myllm.engine.engine import Engine
from myllm.engine.ensure import check_again, ensure_engine, proven_engine
from myllm.engine.find import find_engine
from myllm.engine.progress import Progress
from myllm.engine.quantize import QUANTIZATIONS
from myllm.engine.selfcheck import check_engine, describe_exit
from myllm.engine.selfcheck_result import Verdicts
from tests.engine.conftest import MakeSettings

QUANTIZED = tuple(name for name in QUANTIZATIONS if name not in ("F16", "BF16"))
# A changed rotation of positions: the engine runs, but answers nonsense.
NONSENSE = "--rope-freq-base 3"


def write_wrapper(folder: Path, engine: Engine, script: str = "", more: str = "") -> Path:
    """A llama-server in `folder` that runs `script` and then, with arguments `more`, the real one;
    beside it the real llama-quantize."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "llama-quantize").symlink_to(engine.tool("llama-quantize"))
    server = folder / "llama-server"
    server.write_text(
        "#!/bin/sh\n"
        f'case "$1" in --version|--list-devices) exec {engine.server} "$@";; esac\n'
        f'{script}\nexec {engine.server} "$@" {more}\n'
    )
    server.chmod(0o755)
    return server


def dies_of(quantizations: tuple[str, ...], signal: str = "ILL") -> str:
    """Shell code that kills a llama-server started with one of these quantizations."""
    patterns = "|".join(f"*-{name}.gguf*" for name in quantizations)
    return f'case "$*" in {patterns}) kill -{signal} $$;; esac'


def wrapped(server: Path) -> Engine:
    return Engine(server, "setting", "", 0, "", ("CPU",))


def test_the_engine_answers_in_every_quantization_and_is_checked_once(
    engine: Engine, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(llama_server=engine.server)
    assert proven_engine(settings) is None
    heard: list[Progress] = []
    assert ensure_engine(settings, heard.append).server == engine.server
    found = Verdicts(settings).get(engine)
    assert found is not None
    assert (found.checked, found.faults, found.undecided) == (QUANTIZATIONS, {}, {})
    assert [step.detail for step in heard] == list(QUANTIZATIONS)

    heard.clear()
    assert ensure_engine(settings, heard.append) == proven_engine(settings)
    assert not heard
    monkeypatch.setattr(selfcheck_result, "cpu_identity", lambda: "another CPU")
    assert proven_engine(settings) is None


def test_an_engine_that_dies_with_quantized_models_is_skipped(
    engine: Engine, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gcc 12 compiles it for CPUs with AMX: only F16 and BF16 work."""
    amx = frozenset({"avx2", "avx512f", "amx_tile"})
    monkeypatch.setattr(selfcheck, "cpu_features", lambda: amx)
    broken = write_wrapper(tmp_path / "broken", engine, dies_of(QUANTIZED))
    on_path = write_wrapper(tmp_path / "good", engine)
    monkeypatch.setenv("PATH", str(on_path.parent), prepend=":")
    settings = make_settings(llama_server=broken)
    heard: list[Progress] = []
    assert ensure_engine(settings, heard.append).server == on_path

    [note] = [step.detail for step in heard if step.phase == "note"]
    assert note == (
        f"{broken} is not used, because it does not work on this CPU: {', '.join(QUANTIZED)}: "
        "it died of an illegal instruction (SIGILL), most likely of AMX"
    )
    assert "\n" not in note
    found = find_engine(settings)
    assert found is not None
    assert found.server == on_path
    finding = engine_checks(settings)[0].finding
    assert f"{broken} is not used" in finding
    assert f"{on_path}, answers correctly in Q4_0" in finding


def test_a_wrong_answer_is_a_fault(engine: Engine, tmp_path: Path) -> None:
    server = write_wrapper(tmp_path / "wrong", engine, more=NONSENSE)
    found = check_engine(wrapped(server))
    assert set(found.faults) == set(QUANTIZATIONS)
    assert "in place of 'Paris'" in found.faults["Q4_0"]


def test_a_slow_engine_is_not_broken_and_is_checked_again(
    engine: Engine, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "_LOAD_S", 0.3)
    server = write_wrapper(tmp_path / "slow", engine, "exec sleep 60")
    settings = make_settings(llama_server=server)
    found = check_again(settings, wrapped(server))
    assert found.passed
    assert set(found.undecided) == set(QUANTIZATIONS)
    assert "too busy" in found.summary()
    assert Verdicts(settings).get(wrapped(server)) is None
    assert ensure_engine(settings).server == server


@pytest.mark.parametrize(
    ("has_gguf", "checked", "quantizer"),
    [
        (True, ("Q4_0", "Q4_1", "Q8_0", "BF16", "F16"), "Python's gguf"),
        (False, ("F16",), "no quantizer"),
    ],
)
def test_without_llama_quantize(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_gguf: bool,
    checked: tuple[str, ...],
    quantizer: str,
) -> None:
    server = write_wrapper(tmp_path / "alone", engine)
    (server.parent / "llama-quantize").unlink()
    if not has_gguf:
        monkeypatch.setitem(sys.modules, "gguf", None)
    found = check_engine(wrapped(server))
    assert (found.checked, found.faults) == (checked, {})
    assert f"(with {quantizer})" in found.summary()


def test_a_quantizer_that_fails_is_the_engines_fault(engine: Engine, tmp_path: Path) -> None:
    server = write_wrapper(tmp_path / "bad", engine)
    (server.parent / "llama-quantize").unlink()
    quantizer = server.parent / "llama-quantize"
    quantizer.write_text("#!/bin/sh\necho no idea\nexit 3\n")
    quantizer.chmod(0o755)
    found = check_engine(wrapped(server))
    assert set(found.faults) == set(QUANTIZATIONS) - {"F16"}
    assert found.faults["Q8_0"] == "llama-quantize ended with 3: no idea"


def test_a_verdict_is_kept_elsewhere_when_the_cache_is_read_only(
    engine: Engine, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(
        cache_dir=Path("/proc/1/myllm"), state_dir=tmp_path / "state", llama_server=engine.server
    )
    assert check_again(settings, engine).passed
    assert Verdicts(settings).get(engine) is not None
    assert list((tmp_path / "state" / "engine-checks").iterdir())


def test_descriptions_of_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "cpu_features", lambda: frozenset({"avx2", "avx512f"}))
    assert describe_exit(3) == "it exited with code 3"
    assert describe_exit(-11) == "it was killed by SIGSEGV"
    assert describe_exit(-4).endswith("most likely of AVX-512")
    assert hardware.widest_instruction_set(frozenset({"asimd"})).startswith("an instruction set")
