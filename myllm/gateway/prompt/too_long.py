"""The error for a prompt that fills the context: which context would hold it, at what cost."""

from __future__ import annotations

from myllm.errors import PromptTooLong
from myllm.supervisor.footprints import growth_mb
from myllm.supervisor.spec import InstanceSpec

_MIB_PER_GIB = 1024


def too_long(spec: InstanceSpec, prompt_tokens: int) -> PromptTooLong:
    """Return the error for a prompt of `prompt_tokens` tokens to an engine of `spec`."""
    return PromptTooLong(prompt_tokens, spec.context_size, _advice(spec, prompt_tokens))


def _advice(spec: InstanceSpec, prompt_tokens: int) -> str:
    """Name the setting that makes room, if there is one: engines that embed or rerank have none.

    Its value is the current size doubled until a quarter of it is left for the answer, as `fit`
    wants it, but at most what the model was trained for.
    """
    if spec.key.role != "generate":
        return ""
    trained = spec.model.header.context_length
    if trained and prompt_tokens >= trained:
        return f"the model was trained for at most {trained} tokens, so shorten the prompt"
    size = spec.context_size
    while prompt_tokens > size - size // 4:
        size *= 2
    size = min(size, trained or size)
    more = max(1, growth_mb(spec, size))
    memory = f"{more / _MIB_PER_GIB:.1f} GB" if more >= _MIB_PER_GIB else f"{more} MB"
    return (
        f"set \"context_size\": {size} in the config.json of model '{spec.key.model}', which takes "
        f"about {memory} more memory, and 'myllm reload {spec.key.model}'"
    )
