"""Every state of a slot's contents is one of the five that slot_contents.py draws.

The engine is a fake one, so that any order of requests, saves, failures and removals can be tried.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.errors import EngineError
from myllm.gateway.client import Client
from myllm.gateway.engine_io import calls
from myllm.gateway.kv.slot_cache import SlotCache
from myllm.gateway.kv.slot_contents import SlotContents
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.kv_states import CachedPrefix, KvState
from myllm.sessions.session import SessionRef
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey

State = Literal["empty", "anonymous", "unknown", "unsaved", "saved"]
# Whether each state has an owner, a session and a described KV state, and whether it is saved.
LEGAL: dict[tuple[bool, bool, bool, bool], State] = {
    (False, False, False, False): "empty",
    (True, False, False, False): "anonymous",
    (True, True, False, False): "unknown",
    (True, True, True, False): "unsaved",
    (True, True, True, True): "saved",
}
KEY = InstanceKey("demo", "generate")
OWNERS = ("ann", "bob")
PREFIX = CachedPrefix.of("text", tuple(range(100)))


def state_of(contents: SlotContents) -> State:
    """The one legal state that the fields of `contents` make."""
    owned, session = contents.owner is not None, contents.session is not None
    state = LEGAL[owned, session, contents.kv is not None, contents.saved]
    assert contents.restored == 0 or state == "saved"
    assert contents.expected <= contents.restored
    return state


class FakeFiles:
    """Saved states in memory."""

    keeps = True

    def __init__(self) -> None:
        self.states: dict[str, KvState] = {}

    async def new_aside(self) -> str:
        return "aside"

    async def keep(self, aside: str, kv: KvState) -> None:
        self.states[kv.file_name] = kv

    def discard(self, aside: str) -> None: ...

    async def checked(self, name: str) -> KvState | None:
        return self.states.get(name)

    async def forget(self, session: SessionRef) -> None:
        self.states = {name: kv for name, kv in self.states.items() if kv.session != session}


class FakeEngine:
    """One slot, whose calls check that its contents allow them; `fails` names calls that fail."""

    def __init__(self) -> None:
        self.files = FakeFiles()
        self.cache = SlotCache(cast(KvFiles, self.files), lambda _: 1.0)
        self.fails: set[str] = set()
        self.made: list[str] = []
        self.text_of: str | None = None
        header = SimpleNamespace(state_problem=None, cache_kind="dense")
        spec = SimpleNamespace(key=KEY, state_key="key", model=SimpleNamespace(header=header))
        self.instance = cast(Instance, SimpleNamespace(run_id=1, spec=spec, is_over=lambda: False))

    @property
    def contents(self) -> SlotContents:
        return self.cache._slots.get((1, 0)) or SlotContents()

    async def save_slot(self, instance: Any, slot: int, name: str) -> int:
        self._call("save", "unsaved")
        return len(PREFIX.tokens)

    async def restore_slot(self, instance: Any, slot: int, name: str) -> int:
        self._call("restore", "unknown")
        assert self.contents.in_use
        return len(PREFIX.tokens)

    async def erase_slot(self, instance: Any, slot: int) -> None:
        self._call("erase", "anonymous")
        assert self.contents.in_use
        self.text_of = None

    def _call(self, name: str, state: State) -> None:
        assert state_of(self.contents) == state
        assert self.contents.lock.locked()
        self.made.append(name)
        if name in self.fails:
            raise EngineError(f"cannot {name}")

    async def request(self, owner: str, session: str | None, succeeds: bool) -> None:
        """One request, which leaves early if its slot cannot be prepared."""
        ref = None if session is None else SessionRef(owner, session)
        ticket = Ticket(KEY, 0.0, RequestInfo(Client(owner)), session=ref, slot=0)
        try:
            await self.cache.prepare_slot(self.instance, ticket)
        except EngineError:
            self.cache.release_slot(self.instance, ticket)
            return
        assert self.text_of in (None, owner), "another owner's text stayed in the slot"
        self.text_of = owner
        if succeeds:
            state_of(self.contents)
            self.cache.record(self.instance, ticket, PREFIX, "", 0)
        self.cache.release_slot(self.instance, ticket)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return connected(monkeypatch)


def connected(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()
    for name in ("save_slot", "restore_slot", "erase_slot"):
        monkeypatch.setattr(calls, name, getattr(made, name))
    return made


REQUESTS = st.tuples(
    st.just("request"), st.sampled_from(OWNERS), st.sampled_from(["1", "2", None]), st.booleans()
)
REMOVALS = st.tuples(st.just("remove"), st.sampled_from(OWNERS), st.sampled_from(["1", "2"]))
FAILURES = st.tuples(
    st.just("fail"), st.sets(st.sampled_from(["save", "restore", "erase"]), max_size=3)
)
OTHERS = st.sampled_from([("save_all",), ("end",)])


@given(st.lists(REQUESTS | REMOVALS | FAILURES | OTHERS, max_size=30))
def test_any_order_of_steps_keeps_the_contents_legal_and_owners_apart(
    steps: list[tuple[Any, ...]],
) -> None:
    async def run(engine: FakeEngine) -> None:
        for step in steps:
            match step:
                case ("request", owner, session, succeeds):
                    await engine.request(owner, session, succeeds)
                case ("remove", owner, session):
                    await engine.cache.forget_session(SessionRef(owner, session))
                    left = {kv.session for kv in engine.files.states.values()}
                    assert SessionRef(owner, session) not in left
                case ("fail", names):
                    engine.fails = names
                case ("save_all",):
                    await engine.cache.save_all(engine.instance, 10)
                case _:
                    engine.cache.forget_run(1)
                    engine.text_of = None
            state_of(engine.contents)
            assert not engine.contents.in_use

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(run(connected(monkeypatch)))


async def test_the_transitions_between_the_states(engine: FakeEngine) -> None:
    assert state_of(engine.contents) == "empty"
    await engine.request("ann", None, succeeds=True)
    assert state_of(engine.contents) == "anonymous"
    await engine.request("ann", "1", succeeds=False)
    assert state_of(engine.contents) == "unknown"
    await engine.request("ann", "1", succeeds=True)
    assert state_of(engine.contents) == "unsaved"
    await engine.cache.save_all(engine.instance, 10)
    assert state_of(engine.contents) == "saved"
    await engine.request("ann", "2", succeeds=False)
    assert state_of(engine.contents) == "unknown"
    assert engine.made == ["save"]
    await engine.cache.prepare_slot(
        engine.instance, Ticket(KEY, 0.0, session=SessionRef("ann", "1"), slot=0)
    )
    assert state_of(engine.contents) == "saved"
    assert engine.made == ["save", "erase", "restore"]


async def test_a_save_that_fails_is_tried_again(engine: FakeEngine) -> None:
    await engine.request("ann", "1", succeeds=True)
    engine.fails = {"save"}
    await engine.cache.save_all(engine.instance, 10)
    assert state_of(engine.contents) == "unsaved"
    engine.fails = set()
    await engine.cache.save_all(engine.instance, 10)
    assert state_of(engine.contents) == "saved"


async def test_a_failed_erase_is_repeated_for_the_next_request(
    engine: FakeEngine,
) -> None:
    await engine.request("ann", "1", succeeds=True)
    engine.fails = {"erase"}
    await engine.request("bob", "1", succeeds=True)
    assert engine.text_of == "ann"
    assert state_of(engine.contents) == "anonymous"
    engine.fails = set()
    await engine.request("bob", "1", succeeds=True)
    assert engine.made == ["save", "erase", "erase"]
