"""The answers of eight clients while a request kills the engine once per second for a minute."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Figure
from myllm.engine.find import find_engine
from myllm.settings import load_settings
from tests.hostile.fire import GRAMMAR, Fire, mortal_server, under_fire, unlimited_server

_SECONDS = 60.0
# The bound of the tests during an attack that restarts engines.
_HEALTH_S = 2.0


def measure() -> list[Figure]:
    """Attack an engine that dies of a word, and a real one with a grammar, without limits.

    Fails when a client gets no answer, or one that differs from the undisturbed answer.
    """
    engine = find_engine(load_settings())
    assert engine is not None, "no engine; compile one with 'scripts/myllm engine build'"
    with mortal_server(engine, threads=1) as server:
        same = under_fire(server, _SECONDS, same=True)
        other = under_fire(server, _SECONDS, same=False)
    with unlimited_server() as server:
        grammar = under_fire(server, _SECONDS, same=True, grammar=GRAMMAR)
    fires = {"the same poison": same, "ever new poison": other, "60,000 parentheses": grammar}
    return [figure for name, fire in fires.items() for figure in _figures(name, fire)]


def _figures(name: str, fire: Fire) -> Iterator[Figure]:
    note = f"{len(fire.statuses)} times poison, which got {sorted(set(fire.statuses))}"
    yield Figure(f"whole answers beside {name}", fire.answers, "", least=8, note=note)
    yield Figure(f"/health beside {name}", fire.slowest_s, "s", _HEALTH_S)
