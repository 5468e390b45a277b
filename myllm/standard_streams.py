"""Standard input, output and error when the process was started without some of them."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Open the null device for each stream that is closed (`serve >&-`, `2>&-`).

    Python then has None for it; and the next file that is opened, such as a database, would get
    its number and whatever a library prints there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 - it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
