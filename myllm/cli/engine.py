"""`myllm engine build` and `myllm engine status`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from myllm.engine.build import BuildOptions
    from myllm.engine.types import Device, Engine
    from myllm.settings import Settings

engine_app = typer.Typer(no_args_is_help=True)


class Backend(StrEnum):
    """What the engine computes on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@engine_app.command("build")
def build(
    ctx: typer.Context,
    backend: Annotated[
        Backend, typer.Option(help="auto: CUDA when nvcc and an NVIDIA GPU are there.")
    ] = Backend.auto,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Compilers at once; default: one per CPU.", show_default=False),
    ] = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="For other CPUs than this one: an image, say.")
    ] = False,
    cuda_archs: Annotated[
        str | None,
        typer.Option(
            help="CUDA architectures, such as '86;90'; default: this machine's GPU.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compile llama-server into the cache; an interrupted build goes on where it stopped."""
    from myllm.engine.build import BuildOptions

    options = BuildOptions(backend.value, jobs, portable, cuda_archs)
    engine = build_with_progress(ctx.obj.settings(), options)
    print(f"{engine.server}\n{_summary(engine)}")


@engine_app.command("status")
def status(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which llama-server is used: where it comes from, version, backends, devices."""
    from myllm.cli.common import EXIT_FAILED, print_json
    from myllm.engine.find import find_engine
    from myllm.engine.probe import list_devices

    engine = find_engine(ctx.obj.settings())
    devices = list_devices(engine) if engine else []
    if as_json:
        print_json(_as_json(engine, devices))
    elif engine:
        _print_status(engine, devices)
    else:
        print("No llama-server yet. Compile one: myllm engine build")
    if engine is None:
        raise typer.Exit(EXIT_FAILED)


def build_with_progress(settings: Settings, options: BuildOptions | None = None) -> Engine:
    """Compile an engine (or take the cache's) and show how far it is on stderr."""
    import sys

    from myllm.cli.build_progress import show_progress
    from myllm.engine.build import build_engine

    try:
        with show_progress() as listener:
            return build_engine(settings, options, listener)
    except KeyboardInterrupt:
        print("Interrupted; the next build goes on from here.", file=sys.stderr)
        raise


def ensure_engine_with_progress(settings: Settings) -> Engine:
    """The engine to use; compiles one at first need, which takes minutes and says so on stderr."""
    import sys

    from myllm.engine.find import find_engine

    found = find_engine(settings)
    if found is not None:
        return found
    print("There is no llama-server yet: compiling one. This takes minutes, once.", file=sys.stderr)
    return build_with_progress(settings)


_ORIGINS = {
    "setting": "MYLLM_LLAMA_SERVER",
    "cache": "compiled by MyLLM",
    "path": "found on PATH",
}


def _summary(engine: Engine) -> str:
    number = f"build {engine.build}, " if engine.build else ""
    commit = engine.commit or "unknown"
    return f"version {engine.version} ({number}commit {commit}), {', '.join(engine.backends)}"


def _print_status(engine: Engine, devices: list[Device]) -> None:
    from myllm.cli.tables import print_fields

    print_fields(
        [
            ("server", str(engine.server)),
            ("origin", _ORIGINS[engine.origin]),
            ("version", f"{engine.version} (build {engine.build}, commit {engine.commit})"),
            ("backends", ", ".join(engine.backends)),
            *(("device", _device(each)) for each in devices),
            *([] if devices else [("devices", "CPU only")]),
        ]
    )


def _device(device: Device) -> str:
    free = f"{device.free_mb} of {device.total_mb} MiB free"
    return f"{device.name}: {device.description}, {free}"


def _as_json(engine: Engine | None, devices: list[Device]) -> dict[str, Any]:
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
        "devices": [asdict(device) for device in devices],
    }
