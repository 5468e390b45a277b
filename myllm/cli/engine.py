"""`myllm engine build`, `engine check` and `engine status`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from myllm.cli.common import say

if TYPE_CHECKING:
    from myllm.engine.build_options import BuildOptions
    from myllm.engine.engine import Device, Engine
    from myllm.engine.progress import ProgressListener
    from myllm.engine.selfcheck_result import Verdict
    from myllm.settings import Settings

engine_app = typer.Typer(no_args_is_help=True)


class Backend(StrEnum):
    """The device that the engine computes on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@engine_app.command("build")
def build(
    ctx: typer.Context,
    backend: Annotated[
        Backend, typer.Option(help="auto: CUDA if nvcc and an NVIDIA GPU are present.")
    ] = Backend.auto,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Compilers at once; default: one per CPU.", show_default=False),
    ] = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="For any CPU of this architecture, in an image, say.")
    ] = False,
    cuda_archs: Annotated[
        str | None,
        typer.Option(
            help="CUDA architectures, such as '86;90'; default: this machine's GPU.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compile llama-server into the cache; an interrupted build continues where it stopped."""
    from myllm.engine.build_options import BuildOptions

    options = BuildOptions(backend.value, jobs, portable, cuda_archs)
    engine = build_with_progress(ctx.obj.settings(), options)
    say(f"{engine.server}\n{_summary(engine)}")


@engine_app.command("check")
def check(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove that the engine works on this CPU, in every quantization; takes some seconds."""
    from myllm.cli.common import EXIT_FAILED, print_json
    from myllm.engine.ensure import check_again
    from myllm.engine.find import candidate_engines

    settings = ctx.obj.settings()
    engine = next(candidate_engines(settings), None)
    if engine is None:
        say("No llama-server yet. Compile one: myllm engine build")
        raise typer.Exit(EXIT_FAILED)
    with _progress() as listener:
        verdict = check_again(settings, engine, listener)
    if as_json:
        print_json({"server": str(engine.server), **_verdict_as_json(verdict)})
    else:
        say(f"{engine.server}\n{_verdict_line(verdict)}")
        for quantization in verdict.checked:
            say(f"  {quantization:<7} {verdict.faults.get(quantization, 'ok')}")
    if not verdict.passed:
        raise typer.Exit(EXIT_FAILED)


@engine_app.command("status")
def status(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which llama-server is used: origin, version, backends, self-check, devices."""
    from myllm.cli.common import EXIT_FAILED, print_json
    from myllm.engine.find import find_engine
    from myllm.engine.probe import list_devices
    from myllm.engine.selfcheck_result import Verdicts

    settings = ctx.obj.settings()
    engine = find_engine(settings)
    devices = list_devices(engine) if engine else []
    verdict = Verdicts(settings).get(engine) if engine else None
    if as_json:
        print_json(_as_json(engine, devices, verdict))
    elif engine:
        _print_status(engine, devices, verdict)
    else:
        say("No llama-server that works here yet. Compile one: myllm engine build")
    if engine is None:
        raise typer.Exit(EXIT_FAILED)


def build_with_progress(settings: Settings, options: BuildOptions | None = None) -> Engine:
    """Compile an engine (or take the one in the cache), check it, and show progress on stderr."""
    from myllm.engine.build_options import BuildOptions
    from myllm.engine.ensure import build_proven

    with _progress() as listener:
        return build_proven(settings, options or BuildOptions(), listener)


def ensure_engine_with_progress(settings: Settings) -> Engine:
    """The engine to use. Compiles one on first use, which takes minutes, and says so on stderr."""

    from myllm.engine.ensure import ensure_engine, proven_engine
    from myllm.engine.find import find_engine

    proven = proven_engine(settings)
    if proven is not None:
        return proven
    if find_engine(settings) is None:
        say(
            "No llama-server works here yet: compiling one. This takes minutes, once.",
            stderr=True,
        )
    with _progress() as listener:
        return ensure_engine(settings, listener)


@contextmanager
def _progress() -> Iterator[ProgressListener]:
    """Show progress on stderr; after Ctrl+C, say that the next build continues from here."""

    from myllm.cli.build_progress import show_progress

    try:
        with show_progress() as listener:
            yield listener
    except KeyboardInterrupt:
        say("Interrupted; the next build continues from here.", stderr=True)
        raise


_ORIGINS = {
    "setting": "MYLLM_LLAMA_SERVER",
    "cache": "compiled by MyLLM",
    "path": "found on PATH",
}


def _summary(engine: Engine) -> str:
    number = f"build {engine.build}, " if engine.build else ""
    commit = engine.commit or "unknown"
    return f"version {engine.version} ({number}commit {commit}), {', '.join(engine.backends)}"


def _verdict_line(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not checked on this CPU yet; the next start does it, or: myllm engine check"
    return f"{verdict.summary()} ({verdict.seconds:g} s)"


def _verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    from dataclasses import asdict

    return {"passed": verdict.passed, **asdict(verdict)}


def _print_status(engine: Engine, devices: list[Device], verdict: Verdict | None) -> None:
    from myllm.cli.tables import print_fields

    print_fields(
        [
            ("server", str(engine.server)),
            ("origin", _ORIGINS[engine.origin]),
            ("version", f"{engine.version} (build {engine.build}, commit {engine.commit})"),
            ("backends", ", ".join(engine.backends)),
            ("check", _verdict_line(verdict)),
            *(("device", _device(each)) for each in devices),
            *([] if devices else [("devices", "CPU only")]),
        ]
    )


def _device(device: Device) -> str:
    free = f"{device.free_mb} of {device.total_mb} MiB free"
    return f"{device.name}: {device.description}, {free}"


def _as_json(
    engine: Engine | None, devices: list[Device], verdict: Verdict | None
) -> dict[str, Any]:
    if engine is None:
        return {"found": False}
    from dataclasses import asdict

    return {
        "found": True,
        "server": str(engine.server),
        "origin": engine.origin,
        "version": engine.version,
        "build": engine.build,
        "commit": engine.commit,
        "backends": list(engine.backends),
        "check": _verdict_as_json(verdict) if verdict else None,
        "devices": [asdict(device) for device in devices],
    }
