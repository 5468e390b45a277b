"""Origins as the setting names them, and those that browsers send."""

from __future__ import annotations

import pytest

from myllm.api.http.origins import Origins
from myllm.settings import load_settings


def allowed(monkeypatch: pytest.MonkeyPatch, setting: str) -> Origins:
    monkeypatch.setenv("MYLLM_CORS_ORIGINS", setting)
    return Origins(load_settings().cors_origins)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (
            "chrome-extension://*",
            ["chrome-extension://abcdefghijklmnop"],
            ["moz-extension://a", "https://a"],
        ),
        (
            "https://*.example.com",
            ["https://a.example.com", "https://a.b.example.com"],
            ["https://example.com", "https://evilexample.com", "https://a.example.com.evil.net",
             "https://a.example.com:8443", "http://a.example.com", "https://axexample.com"],
        ),
        (
            "http://localhost:*",
            ["http://localhost", "http://localhost:5173"],
            ["http://localhost.evil.net:80", "https://localhost:5173", "http://a@localhost:1"],
        ),
        ("http://*:8080", ["http://a.b:8080", "http://[::1]:8080"], ["http://a.b", "http://a.b:80"]),
        ("http://[::1]:*", ["http://[::1]:3000"], ["http://[::2]:3000"]),
        ("https://*.Example.com:*/", ["https://a.example.com:1"], ["https://example.com:1"]),
        ("app://.", ["app://."], ["app://x"]),
        ("null", ["null"], ["http://null"]),
        ("*", ["null", "https://a", "chrome-extension://a"], []),
        ("https://a.example, tauri://localhost", ["tauri://localhost"], ["https://aXexample"]),
    ],
)  # fmt: skip
def test_a_pattern_matches_what_it_says(
    monkeypatch: pytest.MonkeyPatch, pattern: str, matching: list[str], others: list[str]
) -> None:
    origins = allowed(monkeypatch, pattern)
    assert all(origin in origins for origin in matching)
    assert [origin for origin in others if origin in origins] == []


def test_without_the_setting_no_origin_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not allowed(monkeypatch, "")
    assert "null" not in Origins()
