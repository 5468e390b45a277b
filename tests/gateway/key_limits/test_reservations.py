"""What the tickets of one request reserve of its key's tokens."""

from __future__ import annotations

from myllm.gateway.key_limits.key_limits import KeyLimits
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.spec import InstanceKey
from tests.gateway.key_limits.clock import Clock, key

EMBEDDER = InstanceKey("bert", "embed")
PATH = "/v1/embeddings"
INPUTS = ["word " * 40] * 3


async def test_the_first_batch_reserves_for_all_and_the_others_leave_that_alone() -> None:
    limits, ann = KeyLimits(Clock()), key(tokens_per_minute=1000)
    record = RequestRecord("id", "POST", PATH, "openai", "127.0.0.1")
    record.allowance = await limits.admit(ann, counts=True)
    request, whole = RequestInfo(record=record), {"input": INPUTS}
    first, *others = [
        request.ticket(EMBEDDER, Demand(PATH, {"input": [each]}, whole=whole)) for each in INPUTS
    ]
    await first.reserve_tokens()
    (reserved,) = limits.left(ann)
    assert reserved.remaining < 1000 - 3 * 40
    record.allowance.count(200, 0)
    (counted,) = limits.left(ann)
    for ticket in others:
        ticket.goes_on = True
        await ticket.reserve_tokens()
    assert limits.left(ann) == [counted]
