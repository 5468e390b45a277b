"""The demo model with templates that know tools or thoughts, of which the model knows nothing.

In the one, a call begins with the word `Paris.`: asked for the capital of France, the model says
it, and from there the engine's grammar makes it a call. In the other, the model thinks what it
would have said; told not to think it says nothing that makes sense.
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
"""A thought is begun for the model, and not when it is told not to think; then it answers."""
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
"""What the tool takes that the tests have; there is only one thing to call it with."""


def add_model(models_dir: Path, name: str, template: str, **config: Any) -> None:
    """Add the demo model with `template` to a models folder."""
    folder = models_dir / name
    folder.mkdir(parents=True)
    shutil.copy(BUILTIN_DIR / "demo" / "demo.gguf", folder)
    (folder / "chat.jinja").write_text(template)
    parameters = {"temperature": 0, "repeat_penalty": 1.0}
    told = {"template": "chat.jinja", "parameters": parameters} | config
    (folder / "config.json").write_text(json.dumps(told))
