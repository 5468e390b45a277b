"""Entry point of `myllm` and `python -m myllm`."""

from __future__ import annotations

import sys

from myllm.cli.common import EXIT_INTERRUPTED
from myllm.cli.failures import report
from myllm.cli.streams import finish, prepare
from myllm.standard_streams import open_closed


def main() -> None:
    """Run one command and exit: 0, 1 failed, 2 usage, 130 interrupted, 141 output reader gone."""
    open_closed()
    prepare()
    code: str | int | None = 0
    try:
        _run()
    except SystemExit as leaving:
        code = leaving.code
    except KeyboardInterrupt:  # before a command has begun, or after it has ended
        code = EXIT_INTERRUPTED
    except Exception as failure:  # noqa: BLE001 - the last place to catch one
        code = report(failure, verbose=False)
    sys.exit(finish(code))


def _run() -> None:
    """Answer a lone `--version` before importing anything heavy."""
    if sys.argv[1:] == ["--version"]:
        from myllm import __version__

        print(f"myllm {__version__}")
        return
    from myllm.cli.main import run

    run()


if __name__ == "__main__":
    main()
