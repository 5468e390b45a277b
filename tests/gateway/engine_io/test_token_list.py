"""The tokens that an engine lists are counted, and parsed only as far as they are wanted."""

from __future__ import annotations

import orjson
import pytest

from myllm.gateway.engine_io import token_list
from myllm.gateway.engine_io.token_list import Tokens, read_tokens

WIDEST = 2**31 - 1


@pytest.mark.parametrize("token", [0, 7, WIDEST])
@pytest.mark.parametrize("step", [1, 7, 2**18])
@pytest.mark.parametrize("count", [0, 1, 2, 99, 1000])
async def test_the_first_tokens_and_their_number(
    token: int, step: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_list, "_STEP", step)
    ids = [token + n % 2 * (token < WIDEST) for n in range(count)]
    for most in (0, 1, 5, 98, 99, 100, 5000):
        read = await read_tokens(orjson.dumps({"tokens": ids}), most)
        assert read == Tokens(count, ids[:most])
        assert read.are_all == (count <= most)


async def test_tokens_that_no_context_holds_are_not_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parsing four million keeps Python's lock for 0.1 s."""
    parsed: list[int] = []
    loads = orjson.loads
    monkeypatch.setattr(
        token_list.orjson, "loads", lambda text: (parsed.append(len(text)), loads(text))[1]
    )
    read = await read_tokens(orjson.dumps({"tokens": [1234] * 1_000_000}), most=1000)
    assert read == Tokens(1_000_000, [1234] * 1000)
    assert max(parsed) < 12_000
