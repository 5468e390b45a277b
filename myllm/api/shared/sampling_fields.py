"""Types of fields that say how tokens are chosen, with their bounds and descriptions.

The dialects agree on these. What a dialect bounds in another way stands in its own schema.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from myllm.api.shared.bounded import Biases, Stop, Stops
from myllm.limits import WHOLE

Temperature = Annotated[
    float | None,
    Field(
        ge=0.0, le=2.0, description="Higher is more random; 0 always takes the most likely token."
    ),
]
TopP = Annotated[
    float | None,
    Field(
        ge=0.0,
        le=1.0,
        description="Only the most likely tokens that together have this probability.",
    ),
]
TopK = Annotated[
    int | None, Field(ge=0, le=WHOLE, description="Only the k most likely tokens; 0: all.")
]
MinP = Annotated[
    float | None,
    Field(ge=0.0, le=1.0, description="Least probability, relative to the most likely token."),
]
TypicalP = Annotated[
    float | None,
    Field(
        ge=0.0,
        le=1.0,
        description="Only tokens whose probability is typical of the context; 1: off.",
    ),
]
MaxTokens = Annotated[int | None, Field(ge=1, le=WHOLE, description="Longest answer, in tokens.")]
StopTexts = Annotated[
    Stop | Stops | None, Field(description="The answer ends before any of these.")
]
RepeatPenalty = Annotated[float | None, Field(ge=0.0, description="Over 1: fewer repetitions.")]
RepeatLastN = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**20,  # the engine reserves memory for as many, whether there are as many or not
        description="How many of the last tokens the penalties look at; 0: none.",
    ),
]
PresencePenalty = Annotated[
    float | None,
    Field(ge=-2.0, le=2.0, description="Lowers the score of tokens that have occurred."),
]
FrequencyPenalty = Annotated[
    float | None,
    Field(
        ge=-2.0,
        le=2.0,
        description="Lowers the score of tokens by how often they have occurred.",
    ),
]
LogitBias = Annotated[
    Biases | None,
    Field(description="Added to the score of a token, named by its id or its text; false bans it."),
]
Mirostat = Annotated[
    Literal[0, 1, 2] | None,
    Field(description="Mirostat sampling: 0 off, 1 its first version, 2 its second."),
]
MirostatTau = Annotated[float | None, Field(description="Mirostat's target entropy.")]
MirostatEta = Annotated[float | None, Field(description="Mirostat's learning rate.")]
