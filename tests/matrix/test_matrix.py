"""Every repair, in every dialect, with the chat templates of many model families.

Each request is answered, and the model is shown every word of it; what it cannot be shown is named
in a header. No request fails because of what an earlier turn contains.

Every repair meets every template in OpenAI's dialect. In the others, which differ in nothing once
their form is converted, it meets some templates with different traits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.matrix.dialects import OPENAI, OTHERS, Dialect, Inexpressible
from tests.matrix.engines import Prompts, models_with_templates, words_in
from tests.matrix.families import FAMILIES
from tests.matrix.repairs import ASK, REPAIRS, TOOLS, Repair, call, calls, result
from tests.serving import Serving

pytestmark = pytest.mark.more

TRAITS = (
    "gemma-2",  # neither system messages nor tools; questions and answers must alternate
    "gpt-oss",  # leaves out messages without an error
    "mistral-nemo",  # refuses ids that are not nine characters
    "qwen-3.5",  # refuses a system message that is not the first; shows thoughts
    "zephyr",  # built into llama.cpp, not in Jinja
)
# The tests' model ends every answer at once. Where its template has opened a thought, for example,
# the engine reports that as a fault of the model. It has read the prompt by then.
MUTE = "The model produced output that does not match the expected"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server with a model for each family."""
    with models_with_templates(engine) as running:
        yield running


@dataclass(frozen=True)
class Template:
    """A model's template: whether it shows tools, and thoughts in a loop of tools."""

    family: str
    prompts: Prompts
    takes_tools: bool
    shows_thoughts: bool


@pytest.fixture
def template(server: Serving, api: httpx.Client, family: str) -> Iterator[Template]:
    """The template of `family`, whose model is the only one that is loaded."""
    first = {"model": family, "max_tokens": 1, "messages": [ASK]}
    api.post(OPENAI.path, json=first).raise_for_status()
    prompts = Prompts(server)
    loop = [ASK, calls(call(), reasoning_content="thoughtFirst"), result()]
    rendered = prompts.rendered({"messages": loop, "tools": TOOLS})
    yield Template(family, prompts, prompts.takes_tools(), "thoughtFirst" in (rendered or ""))
    prompts.close()


def fault(api: httpx.Client, dialect: Dialect, template: Template, repair: Repair) -> str | None:
    """Return what is wrong with the answer to one request."""
    try:
        body = dialect.body(repair, repair.tools and template.takes_tools)
    except Inexpressible:
        return None
    # In ASCII, which can express half a character.
    content = json.dumps({"model": template.family, **body})
    headers = {"Content-Type": "application/json"}
    answer = api.post(dialect.path, content=content, headers=headers)
    if answer.status_code == 400 and repair.refusal and repair.refusal in answer.text:
        return None
    if answer.status_code != 200 and MUTE not in answer.text:
        return f"{answer.status_code} {answer.text[:300]}"
    prompt = template.prompts.latest()
    lost = {word for word in words_in(body) if word not in prompt}
    if not template.shows_thoughts:
        lost = {word for word in lost if not word.startswith("thought")}
    names_it = "X-MyLLM-Ignored" in answer.headers
    if lost and not names_it:
        return f"lost {sorted(lost)}"
    if repair.leaves_out and not names_it and "image" not in prompt:
        return "something is left out and not named"
    return None


def check_all(api: httpx.Client, dialect: Dialect, template: Template) -> None:
    """Fail with a line for each faulty answer."""
    where = f"{template.family} | {dialect.name}"
    found = [(each.name, fault(api, dialect, template, each)) for each in REPAIRS]
    faults = [f"{where} | {name} | {what}" for name, what in found if what]
    assert not faults, "\n".join([f"{len(faults)} faults:", *faults])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_template_shows_everything(api: httpx.Client, template: Template) -> None:
    check_all(api, OPENAI, template)


@pytest.mark.parametrize("dialect", OTHERS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("family", TRAITS)  # below, so that a model is loaded once
def test_every_dialect_repairs_everything(
    api: httpx.Client, template: Template, dialect: Dialect
) -> None:
    check_all(api, dialect, template)
