"""The Hugging Face hub: what a repository holds, and downloading one of its files.

`huggingface_hub` is imported late, because that takes 0.1 s and more. It reads `HF_ENDPOINT`,
`HF_TOKEN` and its timeouts (10 s without a byte) from the environment. Its own `hf_hub_download`
starts from the beginning after a restart of the process, so downloads are resumed here, with its
`http_get`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from myllm.errors import MyLLMError, PullFailed

_INFO_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 1.0


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository at one commit. `checksum` is `sha256:…` for what LFS stores, and
    `git:…` (the SHA-1 of git's blob) for a small file that it does not."""

    repo: str
    commit: str
    name: str
    size: int
    checksum: str


def list_files(repo: str) -> list[RemoteFile]:
    """All files of `repo` with size and checksum; raises PullFailed when it cannot be read."""
    from huggingface_hub import HfApi

    with _errors_explained(repo):
        info = HfApi().model_info(repo, files_metadata=True, timeout=_INFO_TIMEOUT_S)
    if not info.sha:
        raise PullFailed(f"the hub does not specify the commit of {repo}")
    found = []
    for file in info.siblings or []:
        if file.size is not None and (file.lfs or file.blob_id):
            checksum = f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
            found.append(RemoteFile(repo, info.sha, file.rfilename, file.size, checksum))
    return found


def download(file: RemoteFile, path: Path, on_bytes: Callable[[int], None]) -> None:
    """Download `file` to `path`, continuing after the bytes that `path` already has.

    A broken connection is retried as long as bytes arrive; after five attempts without any this
    raises PullFailed and keeps what has arrived. `on_bytes` receives the number of bytes in `path`.
    If the hub sends more than the declared size, this raises PullFailed and deletes `path`.
    """
    _silence_library()
    if path.exists() and path.stat().st_size > file.size:
        path.unlink()
    tries = 0
    while (has := path.stat().st_size if path.exists() else 0) < file.size or not path.exists():
        on_bytes(has)
        try:
            with _errors_explained(file.repo):
                problem = _fetch(file, path, has, on_bytes)
        except _TooManyBytes:
            path.unlink()
            raise
        if problem is None:
            return
        tries = 0 if path.stat().st_size > has else tries + 1
        if tries == _ATTEMPTS:
            raise PullFailed(
                f"the download of {file.name} broke off {_ATTEMPTS} times ({problem}); pull again"
                " to go on from where it stopped"
            )
        time.sleep(_PAUSE_S)
    on_bytes(file.size)


def _fetch(
    file: RemoteFile, path: Path, has: int, on_bytes: Callable[[int], None]
) -> Exception | None:
    """Request the rest of `file` once; return the error if the connection broke."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    headers = build_hf_headers(library_name="myllm")
    headers["Accept-Encoding"] = "identity"  # a compressed answer could not be resumed
    with _LimitedFile(path, file, on_bytes) as out:
        try:
            http_get(
                hf_hub_url(file.repo, file.name, revision=file.commit),
                out,
                resume_size=has,
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.name,
            )
        except HfHubHTTPError:
            raise
        except _transport_error() as failure:
            return failure
    return None


class _TooManyBytes(PullFailed):
    """The hub sends more bytes than it declared."""


class _LimitedFile(io.BufferedWriter):
    """A file opened for appending that reports its size and refuses more bytes than declared."""

    def __init__(self, path: Path, file: RemoteFile, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path.open("ab", buffering=0))
        self._file = file
        self._on_bytes = on_bytes

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._file.size:
            raise _TooManyBytes(
                f"the hub sends more of {self._file.name} than the {self._file.size:,} bytes that "
                "it declared; what came was deleted"
            )
        written = super().write(data)
        self._on_bytes(self.tell())
        return written


def checksum_of(path: Path, kind: str) -> str:
    """The checksum of `path` in the form of `RemoteFile.checksum`, of the same kind."""
    if kind == "git":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return f"{kind}:{digest.hexdigest()}"


def _silence_library() -> None:
    """Keep the library's progress bars and retry messages off the terminal; MyLLM shows its own."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _transport_error() -> type[Exception]:
    """The base class of the errors of the library's HTTP client, which depends on its version."""
    from huggingface_hub import errors

    base: type[Exception] = vars(errors)["HTTPError"]
    return base


@contextmanager
def _errors_explained(repo: str) -> Iterator[None]:
    """Turn the library's exceptions into PullFailed with a sentence for the user."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except MyLLMError:
        raise
    except HfHubHTTPError as failure:
        raise _refusal(repo, failure) from failure
    except HFValidationError as failure:
        raise PullFailed(f"'{repo}' is not a repository's name: {failure}") from failure
    except OfflineModeIsEnabled as failure:
        raise PullFailed("HF_HUB_OFFLINE is set, so nothing can be pulled") from failure
    except _transport_error() as failure:
        raise PullFailed(
            f"cannot reach {ENDPOINT} ({failure or type(failure).__name__}); is there a network,"
            " and is HF_ENDPOINT right?"
        ) from failure
    except (OSError, ValueError) as failure:
        raise PullFailed(f"the download from {repo} failed: {failure}") from failure


def _refusal(repo: str, failure: Any) -> PullFailed:
    """The error to raise for an error response of the hub."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    status = failure.response.status_code
    if isinstance(failure, EntryNotFoundError):
        return PullFailed(f"a file of {repo} is gone from the hub; pull again")
    if isinstance(failure, GatedRepoError):
        return PullFailed(
            f"{repo} is gated: accept its terms at {ENDPOINT}/{repo} and set HF_TOKEN to a token of"
            " an account that may read it"
        )
    if status == 404 or isinstance(failure, RepositoryNotFoundError):
        private = "" if get_token() else ", or it is private and HF_TOKEN is not set"
        return PullFailed(f"there is no repository {repo} at {ENDPOINT}{private}")
    if status in (401, 403):
        return PullFailed(f"{ENDPOINT} refuses {repo} ({status}): HF_TOKEN is missing or wrong")
    return PullFailed(f"{ENDPOINT} answered with status {status}; try again later")
