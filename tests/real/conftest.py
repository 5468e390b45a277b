"""A server with both trained models, shared by the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from myllm.engine.engine import Engine
from tests.real.questions import ONE_THREAD
from tests.real_models import MINILM, SMOLLM2, serving_real_models
from tests.serving import Serving


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """`myllm serve` with SmolLM2 and all-MiniLM."""
    with serving_real_models(SMOLLM2, MINILM, **ONE_THREAD) as running:
        yield running
