"""What a chat template accepts; `engine_io/template_probes.py` finds it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class TemplateTraits:
    """What a chat template accepts, and renders without losing any of it.

    `late_systems`: several system messages, at any place. `alternates`: users and assistants must
    take turns, and a user begins. `needs_user`: there must be a user message.

    `calls` and `results`: it has a form for the calls of tools, and for their results.
    `short_ids`: the ids of calls must have nine letters or digits. `parallel_calls`: one message
    may have several calls. `system_in_tool_loops`: it renders the system message also when the
    result of a tool comes last. `text_beside_calls`: where the text of a message with calls must
    be. `user_after_result`: a user message may follow the result of a tool. `results_apart`: other
    messages may come between a call and its result.

    `thoughts`: where it shows what the assistant thought before it called tools. Where that is
    never, or instead of the message's text, thoughts would displace the text.
    """

    late_systems: bool = True
    alternates: bool = False
    needs_user: bool = False
    calls: bool = True
    results: bool = True
    short_ids: bool = False
    parallel_calls: bool = True
    system_in_tool_loops: bool = True
    text_beside_calls: Literal[
        "together", "together in the last turn", "in a message before", "nowhere"
    ] = "together"
    user_after_result: bool = True
    results_apart: bool = True
    thoughts: Literal["beside text", "instead of text", "never"] = "beside text"


STRICTEST: Final = TemplateTraits(
    late_systems=False,
    alternates=True,
    needs_user=True,
    calls=False,
    results=False,
    thoughts="never",
)
"""One system message, then texts of users and assistants in turns: every template accepts that."""
