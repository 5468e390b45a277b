"""Every exception class has a status."""

from __future__ import annotations

import pytest

from myllm import errors
from myllm.api.errors.handlers import STATUS, status_of


def subclasses(kind: type[errors.MyLLMError]) -> list[type[errors.MyLLMError]]:
    found = []
    for each in kind.__subclasses__():
        found += [each, *subclasses(each)]
    return found


@pytest.mark.parametrize("kind", subclasses(errors.MyLLMError))
def test_every_error_has_a_status(kind: type[errors.MyLLMError]) -> None:
    assert any(ancestor in STATUS for ancestor in kind.__mro__)


def test_the_nearest_ancestor_counts() -> None:
    assert status_of(errors.ModelNotFound("x", [])) == 404
    assert status_of(errors.PromptTooLong(3, 2)) == 400
    assert status_of(errors.EngineDied("x")) == 500
