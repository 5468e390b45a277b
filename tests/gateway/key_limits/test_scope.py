"""Which models are in a key's scope."""

from __future__ import annotations

import pytest

from myllm.gateway.key_limits.scope import scope_of


@pytest.mark.parametrize(
    ("pattern", "within", "outside"),
    [
        ("demo", ["demo", "demo:latest"], ["Demo", "demo2", "demo.", "emo", "demo:8b"]),
        ("demo:latest", ["demo", "demo:latest"], ["demo2"]),
        ("*", ["demo", "gpt-4o:latest"], []),
        ("team-a-*", ["team-a-", "team-a-chat"], ["team-b-chat", "x-team-a-chat"]),
        ("llama-?b", ["llama-8b"], ["llama-70b", "llama-b", "Llama-8b"]),
        ("q[34]-*", ["q3-x", "q4-y"], ["q5-x"]),
        ("q[!3]", ["q4"], ["q3"]),
        ("a.c", ["a.c"], ["abc"]),
        ("[z-a]", [], ["a", "z"]),
        ("***********************b", ["aab"], ["a" * 128]),
    ],
)
def test_patterns(pattern: str, within: list[str], outside: list[str]) -> None:
    scope = scope_of((pattern,))
    assert scope is not None
    assert [name for name in [*within, *outside] if scope.has(name)] == within
    both = scope_of(("another-*", "one", pattern))
    assert both is not None
    assert [name for name in [*within, *outside] if both.has(name)] == within


def test_a_model_is_in_scope_by_any_of_its_names() -> None:
    scope = scope_of(("gpt-4o", "claude-*"))
    assert scope is not None
    assert scope.has("demo", ["gpt-4", "gpt-4o:latest"])
    assert scope.has("demo", ["claude-sonnet"])
    assert not scope.has("demo", ["gpt-4"])
    assert not scope.has("demo")


def test_a_key_without_models_may_use_all() -> None:
    assert scope_of(()) is None


def test_the_most_patterns_that_a_key_can_have() -> None:
    patterns = tuple(f"{'*a' * 127}{number % 10}" for number in range(256))
    scope = scope_of(patterns)
    assert scope is not None
    assert not scope.has("a" * 128)
