"""The sentence for a wrong value, above all for one that may have several types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from myllm.api.errors.validation import explain


class Inner(BaseModel):
    text: str


class Body(BaseModel):
    status: Annotated[int, Field(ge=100, le=599)] | Literal["queued", "ok"] | None = None
    thinking: bool | Literal["low", "high"] | None = None
    choice: Literal["none", "auto"] | Inner = "none"
    texts: str | list[str] = ""
    first_list: list[str] | str = ""
    prompt: Annotated[str, Field(min_length=1)] | Annotated[list[int], Field(max_length=2)] = "x"
    documents: list[str | Inner] = []
    limit: Annotated[int, Field(ge=1, le=9)] = 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"status": "weird"}, "status must be a whole number or one of 'queued' or 'ok'"),
        ({"status": "1.5"}, "status must be a whole number or one of 'queued' or 'ok'"),
        ({"status": 99}, "status must be 100 or more or one of 'queued' or 'ok'"),
        ({"status": 600}, "status must be 599 or less or one of 'queued' or 'ok'"),
        ({"thinking": "much"}, "thinking must be true or false or one of 'low' or 'high'"),
        ({"choice": 3}, "choice must be one of 'none' or 'auto' or an object"),
        ({"choice": {}}, "choice.text is required"),
        ({"texts": 3}, "texts must be a string or a list"),
        ({"texts": ["a", 3]}, "texts[1] must be a string"),
        ({"first_list": ["a", 3]}, "first_list[1] must be a string"),
        ({"first_list": 3}, "first_list must be a list or a string"),
        ({"prompt": ""}, "prompt must not be empty"),
        ({"prompt": [1, 2, 3]}, "prompt must have 2 entries at most"),
        ({"prompt": [1, "a"]}, "prompt[1] must be a whole number"),
        ({"documents": [3]}, "documents[0] must be a string or an object"),
        ({"documents": ["a", {"text": 3}]}, "documents[1].text must be a string"),
        ({"documents": [3], "texts": 3}, "texts must be a string or a list"),
        ({"limit": 0}, "limit must be 1 or more"),
        ({"limit": 10}, "limit must be 9 or less"),
        ({"limit": "x"}, "limit must be a whole number"),
    ],
)
def test_every_alternative_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as failure:
        Body.model_validate(values)
    errors = [error | {"loc": ("body", *error["loc"])} for error in failure.value.errors()]
    assert explain(errors, "application/json", {})[0] == sentence


def test_a_form_s_field_keeps_the_brackets_in_its_name() -> None:
    wrong = {"type": "literal_error", "loc": ("body", "kinds[]", 0), "ctx": {"expected": "'a'"}}
    sentence, field = explain([wrong], "multipart/form-data", {})
    assert sentence == "kinds[][0] must be one of 'a'"
    assert field == "kinds[][0]"
