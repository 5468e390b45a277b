"""Entry point of `myllm` and `python -m myllm`."""

from __future__ import annotations

import sys

from myllm.standard_streams import open_closed


def main() -> None:
    """Run the command line; `--version` alone is answered before anything heavy is imported."""
    open_closed()
    if sys.argv[1:] == ["--version"]:
        from myllm import __version__

        print(f"myllm {__version__}")
        return
    from myllm.cli.main import run

    run()


if __name__ == "__main__":
    main()
