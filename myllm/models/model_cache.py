"""Reads a model's files, and reads them again only after a change."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from myllm.errors import InvalidModel
from myllm.models.gguf import read_header
from myllm.models.gguf_header import Header
from myllm.models.model import Model, broken_model, load_model
from myllm.models.read_errors import unreadable

_WRITING_S: Final = 1.0

# What shows that a file has changed: its name, inode, time of change in ns, size in bytes.
_Stamp = tuple[str, int, int, int]


class ModelCache:
    """The models that were read, by folder; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, tuple[tuple[_Stamp, ...], Model]] = {}
        self._broken: dict[str, tuple[tuple[_Stamp, ...], Model]] = {}
        self._headers: dict[Path, tuple[_Stamp, Header]] = {}

    def load(self, folder: str, builtin: bool) -> Model:
        """The model in `folder`; one that cannot be used has a `problem`."""
        with self._lock:
            known, broken = self._models.get(folder), self._broken.get(folder)
        stamps: tuple[_Stamp, ...] = ()
        settled = False
        try:
            stamps = _stamps(folder)
            if known is not None and known[0] == stamps:
                return known[1]
            if broken is not None and broken[0] == stamps:
                return broken[1]
            settled = _are_settled(stamps)
            model = load_model(Path(folder), builtin, self._read_header)
        except (InvalidModel, OSError) as failure:
            if known is not None and _being_written(stamps):
                return known[1]
            reason = failure if isinstance(failure, InvalidModel) else unreadable(folder, failure)
            model = broken_model(Path(folder), builtin, reason.detail)
            # A fault in the files themselves lasts until they change; an OSError may pass.
            if stamps and settled and not isinstance(failure.__cause__, OSError):
                with self._lock:
                    self._broken[folder] = (stamps, model)
            return model
        with self._lock:
            self._models[folder] = (stamps, model)
            self._broken.pop(folder, None)
        return model

    def _read_header(self, path: Path) -> Header:
        try:
            stamp = _stamp(path.name, path.stat())
        except OSError as failure:
            raise unreadable(path, failure) from failure
        with self._lock:
            known = self._headers.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        header = read_header(path)
        with self._lock:
            self._headers[path] = (stamp, header)
        return header


def _being_written(stamps: tuple[_Stamp, ...]) -> bool:
    """Whether a file was emptied just now: editors do so before they write the new content. In that
    moment a model that was whole before remains what it was."""
    now_ns = time.time_ns()
    return any(
        size == 0 and now_ns - changed_ns < _WRITING_S * 1_000_000_000
        for _, _, changed_ns, size in stamps
    )


def _are_settled(stamps: tuple[_Stamp, ...]) -> bool:
    """Whether all changes are older than a moment: a newer one may leave the same time and size."""
    now_ns = time.time_ns()
    return all(abs(now_ns - changed_ns) > _WRITING_S * 1e9 for _, _, changed_ns, _ in stamps)


def _stamp(name: str, status: os.stat_result) -> _Stamp:
    return name, status.st_ino, status.st_mtime_ns, status.st_size


def _stamps(folder: str) -> tuple[_Stamp, ...]:
    """The stamps of all entries of `folder`, except links that lead nowhere."""
    stamps = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stamps.append(_stamp(entry.name, entry.stat()))
                except FileNotFoundError:
                    continue
    except OSError as failure:
        raise unreadable(folder, failure) from failure
    return tuple(sorted(stamps))
