"""What becomes of regular expressions; that engines enforce the result is tested with an engine."""

from __future__ import annotations

import pytest

from myllm.gateway.constraints.patterns import translate
from myllm.gateway.constraints.regex import Unsupported

# Any text, as JSON spells it; and any but line ends.
ANY = r'([^\x00-\x1F\"\\\x7F]|\\[btnfr"\\])*'
DOT = r'([^\x00-\x1F\"\\\x7F\u2028\u2029]|\\[btf"\\])'


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\d{3}-\d{4}$", "^[0-9]{3}-[0-9]{4}$"),
        (r"^[\w.-]+$", r"^[\-.0-9A-Z_a-z]+$"),
        ("^a+?b*?c??d{2,}?$", "^a+b*c?d{2,}$"),
        ("^(?:a|b)(?<year>c)(?P<month>d)$", "^(a|b)(c)(d)$"),
        ("foo", f"^{ANY}foo{ANY}$"),
        ("^foo", f"^foo{ANY}$"),
        (".*foo$", f"^{ANY}foo$"),
        ("x+", f"^{ANY}x{ANY}$"),
        ("x{3,}y{0,2}", f"^{ANY}x{{3}}{ANY}$"),
        ("", f"^{ANY}$"),
        ("^.{2}$", f"^{DOT}{{2}}$"),
        ("^a|b$", f"^a{ANY}|{ANY}b$"),
        ("(^a$)|^b$", "^a|b$"),
        (r'^"\\\n\x01$', r"^\\\"\\\\\\n\\u0001$".replace(r"\\\"", r"\\" + '"')),
        (r"^ab\.+$", r"^ab(\.)+$"),
        (r"^[\t,]$", r"^([,]|\\[t])$"),
        ("^é+ü$", "^(é)+ü$"),
        (r"^\ud83d\ude00\u{1f600}\u00e9$", "^😀😀é$"),
        ("^(a|)(?:){3}b{0}$", "^((a)?)$"),
        ("^a]b}{$", r"^a\]b\}\{$"),
        (r"^[\]^a-]$", r"^[\-\]\x5Ea]$"),
    ],
)
def test_what_engines_do_not_know_is_translated(pattern: str, text: str) -> None:
    assert translate(pattern).text == text


@pytest.mark.parametrize(
    "pattern",
    ["^(?=a).*$", "^(?!a)", "(?<=a)b", "(?<!a)b", "(?i)a", "(?i:a)", "(?>a)", r"\bfoo\b", r"a\B",
     r"(a)\1", r"(?<x>a)\k<x>", r"\p{L}", r"\P{L}", "a++", "a{2}{3}", "*a", "{2}", "^*", "(", ")",
     "[a", "[]a]", "[^]", "[[:alpha:]]", "[z-a]", r"[\d-z]", "a{3,2}", r"\Aa", r"a\Z", r"\c", r"\q",
     r"\012", "\\", "a^b", "(a$|b)c", r"\ud800", "[", "(?", "(?<", r"[^\s\S]", r"\u{110000}",
     "a{,5}", "[a-z]{,}", "{,5}", "a{1234567890}", "a{0,1234567890}", "(" * 65 + "a" + ")" * 65],
)  # fmt: skip
def test_what_no_grammar_says_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported):
        translate(pattern)


@pytest.mark.parametrize(
    ("pattern", "least", "most", "text"),
    [
        (r"^[a-z]+$", 0, 8, "^[a-z]{1,8}$"),
        (r"^\d*$", 2, None, "^[0-9]{2,}$"),
        (r"^\d{1,9}$", 3, 20, "^[0-9]{3,9}$"),
        (r"^\d{4}-\d\d$", 1, 10, "^[0-9]{4}-[0-9][0-9]$"),
        (r"^(a|bc|)$", 0, 2, "^((a|bc)?)$"),
        ("^$", 0, 5, "^$"),
        ("^a*$", 0, 0, "^$"),
        (r"^\d{3}-\w+$", 0, 12, "^[0-9]{3}-[0-9A-Z_a-z]{1,8}$"),
        ("^a+b$", 0, 8, "^a{1,7}b$"),
        ("^(ab)*c$", 4, 8, "^(ab){2,3}c$"),
        ("^https?:x+$", 0, 9, "^http:x{1,4}|https:x{1,3}$"),
        ("^(a|bc)d*$", 3, 4, "^ad{2,3}|bcd{1,2}$"),
        ("^a+b+$", 0, 4, "^ab{1,3}|a{2}b{1,2}|a{3}b$"),
        ("^a+b+$", 3, None, "^ab{2,}|a{2}a*b+$"),
        (r"^\d(\.\d)?$", 3, 8, r"^[0-9](\.[0-9])$"),
    ],
)
def test_a_length_besides(pattern: str, least: int, most: int | None, text: str) -> None:
    assert translate(pattern).with_length(least, most).text == text


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("^a+b$", 0, 1),
        ("foo", 0, 30),
        ("^(a?)*b?$", 3, 3),
        ("^[^@]+@[^@]+$", 0, 99),
        (r"^\d{4}-\d\d$", 8, None),
        (r"^\d{4,}$", 0, 3),
    ],
)
def test_a_length_that_the_pattern_cannot_have(pattern: str, least: int, most: int | None) -> None:
    with pytest.raises(Unsupported):
        translate(pattern).with_length(least, most)


@pytest.mark.parametrize("piece", ["a", "[a-z]", "a|", "(a)", "a?", r"\W", "(a|b)*", r"\\"])
def test_long_patterns_are_read(piece: str) -> None:
    assert len(translate(f"^{piece * 600}$").text) >= 600
