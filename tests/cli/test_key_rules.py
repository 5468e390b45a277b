"""What a key may do, as people write it on the command line."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest
import typer

from myllm.cli.key_rules import Role, limits_text, rules

NOTHING = {
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
    "max_priority": 0,
}


def read(**given: Any) -> dict[str, Any]:
    names = ("role", "models", "rpm", "tpm", "concurrent", "max_priority", "expires")
    return rules(**{name: given.get(name) for name in names})


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, {}),
        ({"role": Role.ADMIN}, {"role": "admin"}),
        ({"models": "qwen*, demo,"}, {"models": ["qwen*", "demo"]}),
        ({"models": "*"}, {"models": []}),
        ({"rpm": "60"}, {"requests_per_minute": 60}),
        ({"rpm": "none"}, {"requests_per_minute": None}),
        ({"tpm": "9"}, {"tokens_per_minute": 9}),
        ({"concurrent": "2"}, {"concurrent_requests": 2}),
        ({"max_priority": 0}, {"max_priority": 0}),
        ({"expires": "never"}, {"expires_at": None}),
        ({"expires": "2100-01-31T12:00:00+02:00"}, {"expires_at": "2100-01-31T10:00:00.000+00:00"}),
    ],
)  # fmt: skip
def test_only_what_is_given_is_sent(given: dict[str, Any], fields: dict[str, Any]) -> None:
    assert read(**given) == fields


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 90 * 86400), ("12h", 12 * 3600), ("1h30m", 5400)]
)
def test_a_duration_counts_from_now(text: str, seconds: float) -> None:
    before = time.time()
    moment = datetime.fromisoformat(read(expires=text)["expires_at"]).timestamp()
    assert before - 0.001 <= moment - seconds <= time.time()


def test_a_date_is_the_beginning_of_a_day_here() -> None:
    moment = datetime.fromisoformat(read(expires="2100-01-31")["expires_at"])
    assert moment.astimezone().replace(tzinfo=None) == datetime(2100, 1, 31)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"rpm": "-5"}, "--rpm"),
        ({"rpm": "0"}, "--rpm"),
        ({"tpm": "many"}, "--tpm"),
        ({"tpm": "٣"}, "--tpm"),
        ({"concurrent": "1.5"}, "--concurrent"),
        ({"models": " , "}, "--models"),
        ({"expires": "90"}, "--expires"),
        ({"expires": "-1d"}, "--expires"),
        ({"expires": "0d"}, "--expires"),
        ({"expires": "101y"}, "--expires"),
        ({"expires": "2027-02-30"}, "--expires"),
        ({"expires": ""}, "--expires"),
    ],
)
def test_the_option_that_makes_no_sense_is_named(given: dict[str, str], option: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        read(**given)
    assert refused.value.param_hint == option


def test_limits_in_words() -> None:
    assert limits_text(NOTHING) == "none"
    some = {"requests_per_minute": 60, "concurrent_requests": 2, "max_priority": -3}
    assert limits_text(NOTHING | some) == "60 requests/min, 2 at once, priority -3"
