"""The checks of `myllm doctor` about the machine: memory, disk, the models folder, the port."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from myllm.engine.doctor_checks import Check, space_for_build_mb
from myllm.models.unused_entries import unused_entries
from myllm.settings import Settings

_LITTLE_MEMORY_GB = 2.0
_LITTLE_DISK_GB = 5.0
_ASK_TIMEOUT_S = 2.0


def machine_checks(settings: Settings, has_engine: bool) -> list[Check]:
    """The findings, in the order in which they are shown."""
    return [
        memory(),
        cache_disk(settings.cache_dir, has_engine),
        disk("model disk", settings.models_dir, _LITTLE_DISK_GB, "MYLLM_MODELS_DIR"),
        model_folder(settings.models_dir),
        port(settings.host, settings.port),
    ]


def memory() -> Check:
    from myllm.launcher.devices import HOST
    from myllm.launcher.local.devices import read_devices

    host = read_devices(None)[HOST]  # in a container, its limit
    free, total = host.free_mb / 1024, host.total_mb / 1024
    finding = f"{free:.1f} of {total:.1f} GB available"
    if free < _LITTLE_MEMORY_GB:
        return Check("memory", "warning", finding, "close programs, or use a small model")
    return Check("memory", "ok", finding)


def cache_disk(folder: Path, has_engine: bool) -> Check:
    """Disk space for compiling; not needed if an engine exists, as in a container image."""
    check = disk("cache disk", folder, space_for_build_mb() / 1024, "MYLLM_CACHE_DIR")
    if has_engine and check.level == "failed":
        return Check(check.name, "ok", f"{check.finding}, nor need it be: there is an engine")
    return check


def disk(name: str, folder: Path, least_gb: float, setting: str) -> Check:
    """Disk space where `folder` is or would be created."""
    there = _existing(folder)
    free = shutil.disk_usage(there).free / 2**30
    finding = f"{free:.1f} GB free in {folder}"
    if not os.access(there, os.W_OK):
        advice = f"make {there} writable, or let {setting} name another folder"
        return Check(name, "failed", f"{folder} cannot be written", advice)
    if free < least_gb:
        advice = f"free some space, or let {setting} name another folder"
        return Check(name, "warning", f"only {finding}", advice)
    return Check(name, "ok", finding)


def model_folder(folder: Path) -> Check:
    """Whether models can be read from the folder and pulled into it."""
    name = "model folder"
    if not folder.exists():
        return Check(name, "ok", f"{folder} is not there yet; the first pull makes it")
    if not folder.is_dir():
        advice = "remove it, or let MYLLM_MODELS_DIR name a folder"
        return Check(name, "failed", f"{folder} is not a folder", advice)
    if not os.access(folder, os.R_OK | os.X_OK):
        return Check(name, "failed", f"{folder} cannot be read", f"try: chmod u+rx {folder}")
    if not os.access(folder, os.W_OK):
        advice = f"pulling needs it writable; try: chmod u+w {folder}"
        return Check(name, "warning", f"{folder} cannot be written", advice)
    count = sum(1 for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    finding = f"{folder}, {count} model folder{'s' if count != 1 else ''}"
    if unused := unused_entries(folder):
        finding += f", and {len(unused)} thing{'s' if len(unused) != 1 else ''} that cannot be used"
        return Check(name, "warning", finding, "'myllm list' says what to do about each")
    return Check(name, "ok", finding)


def port(host: str, number: int) -> Check:
    """Whether `myllm serve` could listen on the port, or already does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
    except PermissionError:
        advice = "choose one above 1023: MYLLM_PORT or --port"
        return Check("port", "failed", f"port {number} needs privileges", advice)
    except OSError as failure:
        return _taken(host, number, failure)
    return Check("port", "ok", f"{host}:{number} is free")


def _taken(host: str, number: int, failure: OSError) -> Check:
    import errno

    if failure.errno != errno.EADDRINUSE:
        finding = f"cannot listen on {host}:{number}: {failure.strerror}"
        return Check("port", "failed", finding, "correct MYLLM_HOST or MYLLM_PORT")
    if _is_myllm(host, number):
        return Check("port", "ok", f"{host}:{number} is served by a running MyLLM")
    advice = "stop the program that has it, or choose another: MYLLM_PORT or --port"
    return Check("port", "failed", f"{host}:{number} is taken by another program", advice)


def _is_myllm(host: str, number: int) -> bool:
    import httpx

    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    name = f"[{reachable}]" if ":" in reachable else reachable
    # Any certificate will do, since the request has no secret. A proxy in the environment is
    # ignored: it would answer even if no server runs.
    with httpx.Client(timeout=_ASK_TIMEOUT_S, trust_env=False, verify=False) as client:
        for scheme in ("http", "https"):
            with suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
                return bool(client.get(f"{scheme}://{name}:{number}/").json()["name"] == "MyLLM")
    return False


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
