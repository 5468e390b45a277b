"""Conversations that need a repair, or that some template refuses or cuts.

Every word that begins with `mark` must reach the model; every one that begins with `thought` must,
if the template shows the model what it thought in a loop of tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Message = dict[str, Any]

TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Tell something about a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "time")
]
PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Repair:
    """A conversation in OpenAI's form. `tools`: the request has the tools that it calls.

    `leaves_out`: it has something besides the marks that no template can show. `refusal`: words of
    the error with which a dialect may refuse it.
    """

    name: str
    messages: list[Message]
    tools: bool = False
    leaves_out: bool = False
    refusal: str | None = None


def system(text: Any, **more: Any) -> Message:
    return {"role": "system", "content": text, **more}


def user(text: Any, **more: Any) -> Message:
    return {"role": "user", "content": text, **more}


def assistant(text: Any, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def call(call_id: str = "abcdefgh1", city: str = "markCity", name: str = "weather") -> Message:
    function = {"name": name, "arguments": f'{{"city": "{city}"}}'}
    return {"id": call_id, "type": "function", "function": function}


def calls(*made: Message, content: Any = "", **more: Any) -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(made), **more}


def result(call_id: str = "abcdefgh1", text: Any = "markResult", **more: Any) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text, **more}


ASK, HELLO = user("markAsk"), user("markHello")
REPLY, END = assistant("markReply"), user("markEnd")


def without(message: Message, *names: str) -> Message:
    return {name: value for name, value in message.items() if name not in names}


def systems() -> Iterator[Repair]:
    one, two = system("markSystem"), system("markSecond")
    yield Repair("no system message", [ASK])
    yield Repair("system first", [one, ASK])
    yield Repair("two systems", [one, two, ASK])
    yield Repair("three systems", [one, two, system("markThird"), HELLO, REPLY, ASK])
    yield Repair("system after the user", [HELLO, one, REPLY, ASK])
    yield Repair("system after the assistant", [HELLO, REPLY, one, ASK])
    yield Repair("second system in the middle", [one, HELLO, REPLY, two, ASK])
    yield Repair("system at the end", [ASK, one])
    yield Repair("second system at the end", [one, HELLO, REPLY, ASK, two])
    yield Repair("only a system message", [one])
    yield Repair("system, then assistant", [one, REPLY, ASK])
    yield Repair("developer first", [one | {"role": "developer"}, ASK])
    yield Repair("developer in the middle", [HELLO, REPLY, one | {"role": "developer"}, ASK])
    yield Repair("system and developer", [one, two | {"role": "developer"}, ASK])
    yield Repair("empty system", [system(""), ASK])
    yield Repair("system in parts", [system([text("markSystem"), text("markSecond")]), ASK])
    loop = [ASK, calls(call()), result()]
    yield Repair("system in a tool loop", [*loop[:1], one, *loop[1:]], tools=True)
    yield Repair("system after a result", [*loop, one], tools=True)
    yield Repair("system between call and result", [*loop[:2], one, *loop[2:]], tools=True)


def text(value: str) -> Message:
    return {"type": "text", "text": value}


def nulls() -> Iterator[Repair]:
    for role, message in (("user", ASK), ("system", system("markSystem")), ("assistant", REPLY)):
        names = ("name", "tool_calls", "tool_call_id", "reasoning_content", "function_call")
        for name in (*names, "refusal", "audio"):
            odd = message | {name: None}
            whole = [HELLO, odd, END] if role == "assistant" else [odd, END]
            yield Repair(f"{role}'s {name} is null", whole)
    loop = [ASK, calls(call(), content=None), result()]
    yield Repair("content of calls is null", loop, tools=True)
    yield Repair("content of calls is missing", [ASK, without(loop[1], "content"), result()], True)
    yield Repair(
        "reasoning of calls is null", [ASK, loop[1] | {"reasoning_content": None}, result()], True
    )
    yield Repair("name of a result is null", [*loop[:2], result(name=None)], tools=True)
    yield Repair("content of a result is null", [*loop[:2], result(text=None)], tools=True)
    yield Repair("content of an answer is null", [HELLO, assistant(None), END])


def arguments() -> Iterator[Repair]:
    given: dict[str, Any] = {
        "empty": "",
        "blank": " ",
        "an empty object": "{}",
        "cut": '{"city": "markCity',
        "cut after a comma": '{"city": "markCity", ',
        "a text": '"markCity"',
        "no JSON": "markCity",
        "a list": '["markCity"]',
        "a number": "7",
        "null in JSON": "null",
        "null": None,
        "an object": {"city": "markCity"},
        "nested": {"city": {"markCity": ["markDeep", 1, None, True, 0.5]}},
        "encoded twice": '"{\\"city\\": \\"markCity\\"}"',
        "quotes and lines": '{"city": "markCity \\"markQuoted\\"\\n<markTag> {{ markBraces }}"}',
    }
    for name, value in given.items():
        made = call()
        made["function"] = {"name": "weather", "arguments": value}
        yield Repair(f"arguments are {name}", [ASK, calls(made), result()], tools=True)
    made = call()
    made["function"] = {"name": "weather"}
    yield Repair("arguments are missing", [ASK, calls(made), result()], tools=True)


def tool_calls() -> Iterator[Repair]:
    loop = [ASK, calls(call()), result()]
    one, two = call("abcdefgh1"), call("abcdefgh2", "markTown", "time")
    both = [result("abcdefgh1"), result("abcdefgh2", "markOther")]

    def odd(name: str, *messages: Message) -> Repair:
        return Repair(name, [ASK, *messages], tools=True)

    yield odd("a tool loop", *loop[1:])
    yield odd("after a tool loop", *loop[1:], REPLY, END)
    yield odd("no answer after the result", *loop[1:], END)
    yield odd("text before the calls", calls(call(), content="markBefore"), result())
    yield odd(
        "text before earlier calls", calls(call(), content="markBefore"), result(), REPLY, END
    )
    yield odd("no type", calls(without(call(), "type")), result())
    yield odd("no ids", calls(without(call(), "id")), without(result(), "tool_call_id"))
    yield odd("empty ids", calls(call("")), result(""))
    yield odd("null ids", calls(call() | {"id": None}), result() | {"tool_call_id": None})
    for name in ("call_1_0", "toolu_01A09q90qw90lq917835lq9", "x" * 40, "chatcmpl-tool-1f", "1"):
        yield odd(f"id {name}", calls(call(name)), result(name))
    yield odd("parallel calls", calls(one, two), *both)
    yield odd("parallel calls, then a question", calls(one, two), *both, END)
    yield odd("results out of order", calls(one, two), *both[::-1])
    yield odd(
        "equal ids",
        calls(one, two | {"id": "abcdefgh1"}),
        both[0],
        both[1] | {"tool_call_id": "abcdefgh1"},
    )
    yield odd("ids used again", *loop[1:], REPLY, END, *loop[1:])
    yield odd(
        "results without ids", calls(one, two), *[without(each, "tool_call_id") for each in both]
    )
    yield odd("a result without a call", result("unknown"), END)
    yield odd("a result with another id", calls(call()), result("unknown"))
    yield odd("a call without a result", calls(call()), END)
    yield odd("one result for two calls", calls(one, two), both[0], END)
    yield odd("a named result", calls(call()), result(name="weather"))
    yield odd(
        "two steps",
        *loop[1:],
        calls(call("abcdefgh3", "markVillage")),
        result("abcdefgh3", "markThen"),
    )
    yield odd("a question between call and result", calls(call()), HELLO, result())
    yield odd("a call of an unknown tool", calls(call(name="markUnknown")), result())
    yield odd("an empty result", calls(call()), result(text=""))
    yield odd(
        "a result in parts", calls(call()), result(text=[text("markResult"), text("markMore")])
    )
    yield odd(
        "a result in JSON", calls(call()), result(text='{"markKey": ["markValue", 1.5, null]}')
    )
    old = {"name": "weather", "arguments": '{"city": "markCity"}'}
    yield odd(
        "function_call",
        assistant(None, function_call=old),
        {"role": "function", "name": "weather", "content": "markResult"},
    )
    yield Repair("a history with tools, without tools", [*loop, REPLY, END])
    yield Repair("parallel calls, without tools", [ASK, calls(one, two), *both])


def turns() -> Iterator[Repair]:
    yield Repair("a turn", [HELLO, REPLY, END])
    yield Repair("two questions", [HELLO, END])
    yield Repair("two answers", [HELLO, REPLY, assistant("markMore"), END])
    yield Repair("assistant first", [REPLY, END])
    yield Repair("assistant last", [HELLO, REPLY])
    yield Repair("assistant last, after a turn", [HELLO, REPLY, END, assistant("markBegun")])
    yield Repair("only an assistant", [REPLY])
    yield Repair("an empty question", [user(""), REPLY, END])
    yield Repair("an empty answer", [HELLO, assistant(""), END])
    nothing = [HELLO, REPLY, user("")]
    yield Repair("an empty question at the end", nothing, refusal="must not be empty")
    yield Repair("an empty answer at the end", [HELLO, assistant("")])
    yield Repair("named users", [user("markHello", name="ann"), REPLY, user("markEnd", name="bob")])
    yield Repair("unknown fields", [user("markHello", cache=True, extra={"a": [1]}), REPLY, END])


def thoughts() -> Iterator[Repair]:
    for name in ("reasoning_content", "reasoning", "thinking"):
        thinking = {name: "thoughtFirst"}
        yield Repair(f"{name} in a tool loop", [ASK, calls(call(), **thinking), result()], True)
    blocks = [{"type": "thinking", "thinking": "thoughtFirst"}, text("markBefore")]
    yield Repair("thinking in a block", [ASK, calls(call(), content=blocks), result()], True)
    first = calls(call(), reasoning_content="thoughtFirst")
    second = calls(call("abcdefgh2", "markTown"), reasoning_content="thoughtSecond")
    steps = [first, result(), second, result("abcdefgh2", "markThen")]
    yield Repair("thinking in two steps", [ASK, *steps], tools=True)
    answer = assistant("markReply", reasoning_content="earlier thoughts")
    yield Repair("thinking in an earlier turn", [HELLO, answer, END])
    yield Repair("thinking in the text", [HELLO, assistant("<think>earlier</think>markReply"), END])


def parts() -> Iterator[Repair]:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    yield Repair("a question in parts", [user([text("markHello"), text("markMore")])])
    yield Repair("an answer in parts", [HELLO, assistant([text("markReply")]), END])
    yield Repair(
        "an image in the history", [user([text("markHello"), image]), REPLY, END], False, True
    )
    yield Repair("an image alone in the history", [user([image]), REPLY, END], False, True)
    shown = result(text=[text("markResult"), image])
    yield Repair("an image in a result", [ASK, calls(call()), shown], True, True)
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    yield Repair(
        "a sound in the history", [user([sound, text("markHello")]), REPLY, END], False, True
    )
    unknown = {"type": "hologram", "data": 1}
    yield Repair(
        "an unknown part in the history",
        [user([text("markHello"), unknown]), REPLY, END],
        False,
        True,
    )
    refused = [{"type": "refusal", "refusal": "markRefusal"}]
    yield Repair("a refusal in parts", [HELLO, assistant(refused), END])


def surrogates() -> Iterator[Repair]:
    odd = "\ud83d"
    yield Repair("half a character of a user", [user(f"markHello{odd} markMore")])
    yield Repair("half a character of a system", [system(f"markSystem {odd}"), ASK])
    yield Repair("half a character of an assistant", [HELLO, assistant(f"{odd}markReply"), END])
    yield Repair("half a character in parts", [user([text(f"markHello {odd}")]), REPLY, END])
    loop = [ASK, calls(call(city=f"markCity {odd}")), result()]
    yield Repair("half a character of an argument", loop, tools=True)
    yield Repair(
        "half a character escaped in an argument",
        [ASK, calls(call(city="markCity \\ud83d")), result()],
        True,
    )
    yield Repair(
        "half a character of a result",
        [*loop[:1], calls(call()), result(text=f"{odd} markResult")],
        True,
    )


REPAIRS: Final = [
    *systems(),
    *turns(),
    *nulls(),
    *arguments(),
    *tool_calls(),
    *thoughts(),
    *parts(),
    *surrogates(),
]
