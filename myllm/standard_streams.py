"""Standard input, output and error when the process was started without some of them."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Open the null device for each stream that is closed (`serve >&-`, `2>&-`).

    Otherwise Python's stream is None, and the next file that is opened, such as a database, gets
    the stream's number and everything that a library prints to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 - it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
