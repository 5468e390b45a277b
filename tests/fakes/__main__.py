"""Run the fake that the first argument names; the other arguments are an engine's command line."""

from __future__ import annotations

import signal
import sys
import time

from tests.fakes.damage import damages_answers
from tests.fakes.poison import dies_of_poison


def exits_at_once() -> None:
    """Fails to load its model, and prints the cause as llama-server does."""
    print("0.00.001.000 I srv  llama_server: initializing ...", file=sys.stderr)
    print("0.00.002.000 E llama_model_load: the model is made of cheese", file=sys.stderr)
    sys.exit(1)


def says_nothing() -> None:
    """Exits at once without any output."""
    sys.exit(3)


def never_ready() -> None:
    """Runs, but neither reports that it is ready nor listens."""
    time.sleep(600)


def ignores_term() -> None:
    """Reports that it is ready, and ignores every request to exit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('cmd_child_to_router:state:{"state":"ready","payload":{}}', flush=True)
    while True:
        time.sleep(600)


FAKES = {
    each.__name__: each
    for each in (
        exits_at_once,
        says_nothing,
        never_ready,
        ignores_term,
        damages_answers,
        dies_of_poison,
    )
}
FAKES[sys.argv[1]]()
