"""Makes any dialect's messages a conversation that every chat template can be given."""

from __future__ import annotations

from typing import cast

from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import Messages, RawMessages


def normalized(messages: RawMessages, ignored: Ignored) -> Messages:
    """Return `messages`, in OpenAI's form as clients write it, as engines read them.

    `ignored` collects what is left out.
    """
    return cast(Messages, list(messages))
