"""The demo model with templates for tool calls and for thinking, which it was not trained for.

In the template with tools, a call begins with the word `Paris.`: the model writes it when the user
asks for the capital of France, and from there the engine's grammar forces a call. In the template
with thinking, the model thinks the text of its usual answer; without thinking its answer makes no
sense.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from myllm.models.registry import BUILTIN_DIR

TOOLS = """{{- bos_token }}
{%- if tools %}
{{- '<|system|>Call tools like Paris.[{"name": ..., "arguments": ...}]</calls>' }}
{%- for tool in tools %}
{{- tool | tojson }}
{%- endfor %}
{{- '<|end|>' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|user|><tool_response>' + message.content + '</tool_response><|end|>' }}
{%- elif message.role == 'assistant' %}
{{- '<|assistant|>' }}
{%- if message.content %}
{{- message.content }}
{%- endif %}
{%- if message.tool_calls %}
{{- 'Paris.[' }}
{%- for call in message.tool_calls %}
{{- '{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}' if loop.last else '}, ' }}
{%- endfor %}
{{- ']</calls>' }}
{%- endif %}
{{- '<|end|>' }}
{%- else %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""
THOUGHTS = """{{- bos_token }}
{%- for message in messages %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think></think>' }}
{%- endif %}
{%- endif %}
"""
OPEN_THOUGHTS = """
{%- for message in messages -%}
{{ '<|' + message.role + '|>' }}
{%- if message.reasoning_content -%}
{{ '<think>' + message.reasoning_content + '</think>' }}
{%- endif -%}
{{ message.content + '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>{{ '' if enable_thinking is defined and not enable_thinking else '<think>' }}
{%- endif -%}
"""
"""The prompt opens a thought for the model, unless the request turns thinking off."""
AGENT = """{{- bos_token }}
{%- for tool in tools %}
{{- '<|system|>' + tool.function.name + '<|end|>' if loop.first }}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{{- '<|user|>' }}
{%- for question in ('What is the capital of France?', 'Who are you?') %}
{{- question if question in message.content }}
{%- endfor %}
{{- '<|end|>' }}
{%- elif message.role == 'tool' %}
{{- '<|user|>' + message.content + '<|end|>' }}
{%- elif message.role == 'assistant' %}
{{- '<|assistant|>' + (message.content or '') }}
{%- for call in message.tool_calls %}
{{- 'Paris.[' if loop.first }}
{{- '{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}]</calls>' if loop.last else '}, ' }}
{%- endfor %}
{{- '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""
"""Of what the user says the model sees two questions only: the instructions and tools of an agent,
tens of thousands of tokens, would not fit its context."""
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
"""The schema of the tests' only tool, which allows a single value."""


def add_model(models_dir: Path, name: str, template: str, **config: Any) -> None:
    """Add the demo model with `template` to a models folder."""
    folder = models_dir / name
    folder.mkdir(parents=True)
    shutil.copy(BUILTIN_DIR / "demo" / "demo.gguf", folder)
    (folder / "chat.jinja").write_text(template)
    parameters = {"temperature": 0, "repeat_penalty": 1.0}
    whole = {"template": "chat.jinja", "parameters": parameters} | config
    (folder / "config.json").write_text(json.dumps(whole))
