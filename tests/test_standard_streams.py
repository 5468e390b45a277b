"""Commands that start without some of their standard streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = (
    "import os, sys; from myllm.standard_streams import open_closed; open_closed(); "
    "print('out'); print('err', file=sys.stderr); sys.stderr.isatty(); "
    "assert os.open(os.devnull, os.O_RDONLY) > 2"
)


@pytest.mark.parametrize(
    ("closed", "out", "err"),
    [
        ("<&-", "out\n", "err\n"),
        (">&-", "", "err\n"),
        ("2>&-", "out\n", ""),
        ("<&- >&- 2>&-", "", ""),
    ],
)
def test_a_closed_stream_becomes_the_null_device(closed: str, out: str, err: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, SHOW],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, out, err)


def test_a_command_without_stderr_fails_with_its_own_exit_code() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m myllm show nothing-of-that-name 2>&-', sys.executable],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
