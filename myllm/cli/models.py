"""Commands about the models on disk: `pull`, `list`, `show`, `cp`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from myllm.cli.common import print_json, say, warning
from myllm.cli.completion import complete_model
from myllm.cli.tables import Column, print_fields, print_table
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    from myllm.models.registry import Model, Registry
    from myllm.settings import Settings
    from myllm.supervisor.placement import Placement

COLUMNS = (
    Column("NAME"),
    Column("FAMILY", rank=4),
    Column("SIZE", rank=1, right=True),
    Column("QUANT", rank=2),
    Column("CONTEXT", rank=3, right=True),
    Column("TEMPLATE", rank=5),
)
CATALOG_COLUMNS = (
    Column("NAME"),
    Column("FAMILY", rank=3),
    Column("SIZE", rank=1, right=True),
    Column("PULLED", rank=2),
    Column("DESCRIPTION", prose=True),
)
Name = Annotated[
    str,
    typer.Argument(
        help="A model's name, as `myllm list` shows it, or an alias.", autocompletion=complete_model
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def pull(
    ctx: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            help="A catalog name, or org/repo[:file.gguf|:QUANT] on the Hugging Face hub."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Give the model another name.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Pull again even if the model exists.")
    ] = False,
) -> None:
    """Download a model; an interrupted download continues where it stopped."""
    from myllm.cli.pull_progress import show_progress
    from myllm.models.pull import pull as pull_model
    from myllm.models.pull_source import parse_reference

    wanted = parse_reference(reference, name)
    with show_progress(wanted.name) as progress:
        pulled = pull_model(
            registry_of(ctx), wanted, force=force, on_progress=progress.show, say=progress.say
        )
    model = pulled.model
    if pulled.fresh:
        say(f"Pulled {model.name}: {size_text(model.size_bytes)}, {model.quantization}")
    else:
        say(f"{model.name} is already there ({model.path}); --force pulls it again")


def list_models(
    ctx: typer.Context,
    available: Annotated[
        bool, typer.Option("--available", help="Show what can be pulled by name instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models on disk, and the files there that cannot be used."""
    from myllm.models.descriptions import model_summary
    from myllm.models.model import broken_model
    from myllm.models.unused_entries import unused_entries

    if available:
        _list_catalog(ctx, as_json)
        return

    settings = ctx.obj.settings()
    registry = registry_of(ctx)
    models, unused = registry.list(), unused_entries(registry.models_dir)
    placed = _placements(settings, models)
    if as_json:
        shown = [model_summary(model, placed[model.name].context_size) for model in models]
        # Each has a `problem`, as a broken model has.
        broken = [broken_model(Path(each.path), False, each.problem) for each in unused]
        shown += [model_summary(model, 0) for model in broken]
        print_json(shown)
        return
    rows = [
        (
            model.name,
            model.family,
            size_text(model.size_bytes),
            model.quantization,
            str(placed[model.name].context_size),
            model_summary(model, 0)["template"] or "none",
        )
        for model in models
        if model.problem is None
    ]
    print_table(COLUMNS, rows)
    problems = {model.name: model.problem for model in models if model.problem is not None}
    _print_problems(problems | {each.path: each.problem for each in unused})


def _print_problems(problems: Mapping[str, str]) -> None:
    """Print what cannot be used and what to do about it, apart from the table for scripts."""
    if not problems:
        return
    sys.stdout.flush()
    say("\nNot usable:" if sys.stderr.isatty() else "Not usable:", stderr=True)
    for name, problem in problems.items():
        say(f"  {on_one_line(name)}: {on_one_line(problem)}", stderr=True)


def show(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show everything that is known about a model; for a loaded one, what is running now."""
    from myllm.cli.instances import loaded_model

    settings = ctx.obj.settings()
    shown = loaded_model(settings, name) or _shown_on_disk(settings, registry_of(ctx).get(name))
    if as_json:
        print_json(shown)
        return
    shown["template"] = shown["template"] or "none"
    for sentence in shown.pop("warnings", ()):
        warning(sentence)
    print_fields([(key.replace("_", " "), _readable(value)) for key, value in shown.items()])


def _shown_on_disk(settings: Settings, model: Model) -> dict[str, Any]:
    from myllm.models.descriptions import model_details
    from myllm.models.memory_estimate import estimate_mb

    placed = _placements(settings, [model])[model.name]
    estimated = estimate_mb(model, placed.context_size, placed.slots)
    memory = {"estimated_mb": estimated, "slots": placed.slots}
    return model_details(model, placed.context_size) | {"memory": memory}


def _placements(settings: Settings, models: list[Model]) -> dict[str, Placement]:
    """The sizes that a server with these settings would choose here, by the model's name."""
    from functools import partial

    from myllm.launcher.local.devices import read_devices
    from myllm.launcher.local.nvml import open_nvml
    from myllm.models.memory_estimate import estimate_mb
    from myllm.supervisor.device_headroom import headroom
    from myllm.supervisor.placement import choose

    space = headroom(read_devices(open_nvml()), settings, {})
    return {
        model.name: choose(model, settings, space, partial(estimate_mb, model)) for model in models
    }


def copy(
    ctx: typer.Context,
    source: Name,
    name: Annotated[str, typer.Argument(help="The copy's name.")],
) -> None:
    """Copy a model under another name, to configure it differently; its GGUF is shared."""
    from myllm.models.copying import copy_model

    copied = copy_model(registry_of(ctx), source, name)
    takes = (
        f"{size_text(copied.copied_bytes)} copied" if copied.copied_bytes else "sharing its GGUF"
    )
    say(f"Copied {source} to {copied.model.name}, {takes}")


def registry_of(ctx: typer.Context) -> Registry:
    """The registry of the models folder that the options and settings name."""
    from myllm.models.registry import Registry

    return Registry(ctx.obj.settings().models_dir)


def _list_catalog(ctx: typer.Context, as_json: bool) -> None:
    """The models that can be pulled by name, and whether they are here already."""
    from dataclasses import asdict

    from myllm.models.catalog import catalog

    here = {model.name for model in registry_of(ctx).list()}
    entries = list(catalog().values())
    if as_json:
        print_json([asdict(entry) | {"pulled": entry.name in here} for entry in entries])
        return
    rows = [
        (
            entry.name,
            entry.family,
            size_text(entry.size_mb * 1_000_000),
            "yes" if entry.name in here else "no",
            entry.description,
        )
        for entry in entries
    ]
    print_table(CATALOG_COLUMNS, rows)


def size_text(count: int) -> str:
    """Bytes as people read them: `1.2 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
