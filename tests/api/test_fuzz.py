"""Requests generated from the OpenAPI document: no answer is a server error, and none has an
undocumented status or form."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis import Case, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from myllm.engine.engine import Engine
from tests.serving import serving, short_home

TAGS = ("MyLLM", "OpenAI", "Anthropic", "llama.cpp", "Ollama", "Models", "Sessions", "Status")
# No hub to pull from is available, and the other tests need the demo model.
LEFT_OUT = r"/pull$|/delete$"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Each dialect has another name for it, and ignores the other names.
FEW_TOKENS = dict.fromkeys(("max_tokens", "max_output_tokens", "n_predict"), 3)


@pytest.fixture(scope="module")
def description(engine: Engine) -> Iterator[BaseSchema]:
    with short_home() as home, serving(home) as server:
        yield openapi.from_url(f"{server.url}/openapi.json").exclude(path_regex=LEFT_OUT)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.more
def test_requests_of_all_kinds(description: BaseSchema, tag: str) -> None:
    operations = [each.ok() for each in description.include(tag=tag).get_all_operations()]
    assert operations
    for operation in operations:

        @hypothesis.given(operation.as_strategy(), st.booleans())
        @settings(
            max_examples=5,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Case, of_demo: bool) -> None:
            if of_demo and isinstance(case.body, dict) and "model" in case.body:
                case.body |= {"model": "demo", **FEW_TOKENS}
            answer = case.call(timeout=60)
            case.validate_response(answer, checks=CHECKS)

        ask()
