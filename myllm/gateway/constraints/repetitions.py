"""How much a grammar or a regular expression makes an engine compute, judged by its text.

An engine follows every way in which the text so far can have been written, token by token and
for each token of its vocabulary. What multiplies the ways is measured here: repetitions of
repetitions (`([a-z]{1,9}){1,9}`), and items in a row that may be missing (`[a-z]?[a-z]?…`).
A literal between two repetitions separates them, so they do not multiply across one.

Everything is one scan from the left to the right with a stack of its own: a text of any length and
nesting takes time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

# llama.cpp takes a repetition up to a larger number for one without an end.
MAX_REPEATED: Final = 2_000
# A character class has more ways to match than a literal, and so counts for more of them.
_OPTIONAL_LITERAL, OPTIONAL_CLASS = 1, 4

Token = tuple[str, str]
_QUANTIFIER: Final = r"(?P<times>\{[\d,\s]*+\}?|[*+?])"
_GBNF: Final = re.compile(
    r"(?P<rule>[\w-]++\s*+::=)|(?P<name>[\w-]++)|(?P<skip>#[^\n]*+|\s++)"
    r'|"(?P<literal>[^"\\]*+(?:\\.[^"\\]*+)*+)"?|\[(?P<class>[^\]\\]*+(?:\\.[^\]\\]*+)*+)\]?'
    rf"|(?P<open>\()|(?P<close>\))|(?P<or>\|)|{_QUANTIFIER}|(?P<any>!?<[^>]*+>?|.)",
    re.DOTALL,
)
_PATTERN: Final = re.compile(
    r"(?P<any>\\[dDwWsSbBpP]|\.)|(?P<literal>\\.)|\[(?P<class>[^\]\\]*+(?:\\.[^\]\\]*+)*+)\]?"
    r"|(?P<open>\((?:\?(?:[:=!]|P?<[=!\w]*+>?))?)|(?P<close>\))|(?P<or>\|)"
    rf"|{_QUANTIFIER}\??|(?P<skip>[\^$])|(?P<one>.)",
    re.DOTALL,
)


@dataclass(slots=True)
class Ways:
    """What one item of a grammar can be: its measures, and those of what is in it.

    `times` is the largest product of bounded repetitions of repetitions, `nested` how many are
    inside of each other. `optional` counts items in a row that may be missing: the most anywhere,
    and those that the item begins and ends with. `elements` is how many symbols it is of itself.
    """

    may_be_empty: bool = False
    has_literal: bool = False
    times: int = 1
    nested: int = 0
    optional: int = 0
    optional_first: int = 0
    optional_last: int = 0
    elements: int = 1


@dataclass(slots=True)
class Measured:
    """The measures of a whole grammar or regular expression.

    `depth` is how deep its parentheses are nested, `rules` how many rules it has, `elements` how
    many symbols they have when their repetitions are written out.
    """

    times: int = 1
    nested: int = 0
    optional: int = 0
    depth: int = 0
    rules: int = 1
    elements: int = 0


def of_pattern(pattern: str) -> Measured:
    """The measures of a regular expression."""
    measured = Measured()
    _note(measured, _parsed(list(_tokens(_PATTERN, pattern)), {}, measured))
    return measured


def of_grammar(grammar: str) -> Measured:
    """The measures of a GBNF grammar; rules that lead back to themselves count once."""
    rules: dict[str, list[Token]] = {}
    tokens: list[Token] = []
    for kind, text in _tokens(_GBNF, grammar):
        if kind == "rule":
            tokens = rules[text[:-3].rstrip()] = []
        else:
            tokens.append((kind, text))
    measured = Measured(rules=len(rules))
    known: dict[str, Ways] = {}
    for name in _dependencies_first(rules):
        known[name] = _parsed(rules[name], known, measured)
        _note(measured, known[name])
    return measured


def _tokens(language: re.Pattern[str], text: str) -> Iterator[Token]:
    for found in language.finditer(text):
        kind = found.lastgroup
        assert kind is not None
        if kind != "skip":
            yield kind, found[kind]


def _dependencies_first(rules: Mapping[str, list[Token]]) -> Iterator[str]:
    """The names of all rules, each after those that it names, unless they form a cycle."""
    seen: set[str] = set()
    for first in rules:
        path = [(first, iter(rules[first]))] if first not in seen else []
        seen.add(first)
        while path:
            name, rest = path[-1]
            for kind, text in rest:
                if kind == "name" and text in rules and text not in seen:
                    seen.add(text)
                    path.append((text, iter(rules[text])))
                    break
            else:
                path.pop()
                yield name


def _parsed(tokens: list[Token], known: Mapping[str, Ways], measured: Measured) -> Ways:
    """A rule's body; notes the depth and the elements in `measured`."""
    items: list[Ways] = []
    ways: list[Ways] = []
    outer: list[tuple[list[Ways], list[Ways]]] = []
    for kind, text in tokens:
        match kind:
            case "open":
                outer.append((items, ways))
                items, ways = [], []
                measured.depth = max(measured.depth, len(outer))
            case "close":
                if outer:
                    group = _one_of([*ways, _in_a_row(items)])
                    items, ways = outer.pop()
                    items.append(group)
                    measured.elements += 1
            case "or":
                ways.append(_in_a_row(items))
                items = []
            case "times":
                if items:
                    items[-1] = _repeated(items[-1], *_bounds(text))
                    measured.elements += items[-1].elements
            case _:
                items.append(_symbol(kind, text, known))
                measured.elements += items[-1].elements
    for outer_items, outer_ways in reversed(outer):  # parentheses that are left open
        items, ways = [*outer_items, _one_of([*ways, _in_a_row(items)])], outer_ways
    return _one_of([*ways, _in_a_row(items)])


def _symbol(kind: str, text: str, known: Mapping[str, Ways]) -> Ways:
    if kind == "name":
        # One that is in a circle with this rule is not known yet.
        return known.get(text, _OTHER)
    if kind == "literal":
        return Ways(may_be_empty=not text, has_literal=bool(text), elements=len(text))
    if kind == "one":
        return Ways(has_literal=True)
    return Ways(elements=max(1, len(text)))


_OTHER: Final = Ways()


def _in_a_row(items: list[Ways]) -> Ways:
    if len(items) == 1:
        return items[0]
    row = Ways(may_be_empty=True)
    begun, run = False, 0
    for item in items:
        row.has_literal = row.has_literal or item.has_literal
        row.times = max(row.times, item.times)
        row.nested = max(row.nested, item.nested)
        if item.may_be_empty:
            run += item.optional_first
            row.optional = max(row.optional, item.optional, run)
            continue
        run += item.optional_first
        row.optional = max(row.optional, item.optional, run)
        if not begun:
            row.optional_first, begun = run, True
        row.may_be_empty, run = False, item.optional_last
    row.optional = max(row.optional, run)
    row.optional_last = run
    if not begun:
        row.optional_first = run
    return row


def _one_of(ways: list[Ways]) -> Ways:
    if len(ways) == 1:
        return ways[0]
    one = Ways(
        may_be_empty=any(way.may_be_empty for way in ways),
        has_literal=all(way.has_literal for way in ways),
        times=max(way.times for way in ways),
        nested=max(way.nested for way in ways),
        optional=max(way.optional for way in ways),
        optional_first=max(way.optional_first for way in ways),
        optional_last=max(way.optional_last for way in ways),
    )
    return _optional(one) if one.may_be_empty else one


def _repeated(item: Ways, least: int, most: int | None) -> Ways:
    """`item` from `least` to `most` times; None: without an end."""
    count = max(1, least if most is None else most)
    made = Ways(
        may_be_empty=item.may_be_empty or least == 0,
        has_literal=item.has_literal and least > 0,
        times=item.times if item.has_literal else item.times * count,
        nested=item.nested,
        optional=max(item.optional, item.optional_first + item.optional_last if count > 1 else 0),
        optional_first=item.optional_first,
        optional_last=item.optional_last,
        elements=item.elements * count,
    )
    made.times = max(made.times, count)
    if count > 1 or most is None:
        made.nested = max(item.nested, 1 if item.has_literal else item.nested + 1)
    if item.may_be_empty:
        made.optional_first *= count
    return _optional(made, item.has_literal) if made.may_be_empty else made


def _optional(item: Ways, has_literal: bool | None = None) -> Ways:
    """`item`, which may be missing: it is one more of those in its row."""
    literal = item.has_literal if has_literal is None else has_literal
    weight = _OPTIONAL_LITERAL if literal else OPTIONAL_CLASS
    row = max(item.optional_first, item.optional_last, weight)
    item.optional_first = item.optional_last = row
    item.optional = max(item.optional, row)
    return item


def _bounds(quantifier: str) -> tuple[int, int | None]:
    """How often at least, and at most, as llama.cpp takes it."""
    if quantifier[0] != "{":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[quantifier[0]]
    first, comma, last = quantifier.strip("{}").partition(",")
    least = _number(first)
    if not comma:
        return least, least
    most = _number(last) if last.strip() else None
    return least, None if most is None or most > MAX_REPEATED else most


def _number(digits: str) -> int:
    digits = re.sub(r"\D", "", digits)
    return int(digits[:9] or "0") if len(digits) < 10 else 10**9


def _note(measured: Measured, ways: Ways) -> None:
    measured.times = max(measured.times, ways.times)
    measured.nested = max(measured.nested, ways.nested)
    measured.optional = max(measured.optional, ways.optional)
