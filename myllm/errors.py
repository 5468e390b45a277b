"""What can go wrong, each in one sentence that a person can act on.

These classes know nothing of HTTP: `api/errors/handlers.py` maps each of them to a status and an
envelope, and a test checks that the mapping is complete.

    MyLLMError
    ├── InvalidRequest        the request cannot be served as it stands
    │   ├── PromptTooLong     ... because it does not fit the context window
    │   └── Poison            ... because it kills engines
    ├── KeyRefused            the server requires a key, and it is missing or wrong
    ├── Forbidden             the request's Host or Origin is not one of ours
    ├── BodyTooLarge
    ├── NotFound
    │   └── ModelNotFound
    │       └── ModelRemoved  ... because it was removed while the request waited
    ├── Conflict              not now: the model is answering
    │   └── AliasGiven        a model is to be deleted by one of its other names
    ├── Unavailable           waited too long, or the server is stopping: try again later
    │   ├── QueueFull         too many wait already
    │   ├── KeyPaused         the key has sent too many requests that kill engines
    │   └── KeyLimitReached   the key has used what it may use in a minute, or at once
    ├── NoRoom                the model does not fit into memory
    ├── InvalidModel          a model folder, a GGUF or its config.json is unusable
    ├── EngineError           llama-server failed; carries its own words
    │   ├── EngineDied        it was answering; a new one can answer the next request
    │   ├── ModelReplaced     ... but cannot continue this answer, since the GGUF was replaced
    │   ├── EngineMissing     no engine can be run
    │   └── BuildFailed       it could not be compiled
    ├── PullFailed            a download did not end with a whole, checked model
    ├── InvalidSettings       a setting, or a file of them, is wrong
    ├── InvalidKeysFile       the file of API keys cannot be used
    ├── StoreFailed           the store of conversations cannot be read or written
    └── ServeFailed           the server itself cannot start, or is not there
"""

from __future__ import annotations


class MyLLMError(Exception):
    """Base of everything this program raises on purpose.

    `detail` is one sentence for a person; `retryable` says whether the same request can
    succeed later without being changed.
    """

    retryable = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(MyLLMError):
    """A parameter, a body or a prompt is wrong."""


class PromptTooLong(InvalidRequest):
    """The prompt takes more tokens than one conversation of this model may hold.

    `advice` is what to do about it, as a clause without a full stop.
    """

    def __init__(self, prompt_tokens: int, context_size: int, advice: str = "") -> None:
        super().__init__(
            f"Prompt too long for context window ({context_size} tokens): {prompt_tokens} tokens"
            + (f"; {advice}" if advice else "")
        )
        self.prompt_tokens = prompt_tokens
        self.context_size = context_size


class Poison(InvalidRequest):
    """This request kills engines, so no further engine gets it."""


class KeyRefused(MyLLMError):
    """The server requires a key, and it is missing or wrong.

    `key_name` is the name of a key that is known and not valid now.
    """

    def __init__(self, detail: str, key_name: str | None = None) -> None:
        super().__init__(detail)
        self.key_name = key_name


class Forbidden(MyLLMError):
    """The request names another host, or a web page of another origin sent it."""


class BodyTooLarge(MyLLMError):
    """The request's body is over the limit."""


class NotFound(MyLLMError):
    """The thing named does not exist."""


class ModelNotFound(NotFound):
    """No model of this name is in the model folder."""

    def __init__(self, name: str, available: list[str]) -> None:
        known = ", ".join(available) if available else "none, see 'myllm pull'"
        super().__init__(f"Model '{name}' not found. Available models: {known}")


class ModelRemoved(ModelNotFound):
    """The model was removed while the request waited for it."""

    def __init__(self, name: str) -> None:
        NotFound.__init__(self, f"Model '{name}' was removed while the request waited for it")


class Conflict(MyLLMError):
    """The thing named is in use; the same request may succeed later."""

    retryable = True


class AliasGiven(Conflict):
    """A model can be deleted by its own name only."""

    retryable = False

    def __init__(self, alias: str, model: str) -> None:
        super().__init__(
            f"'{alias}' is an alias of the model '{model}'; name '{model}' to delete the model, or "
            "take the alias out of its config.json"
        )


class Unavailable(MyLLMError):
    """Waited too long, backing off or shutting down.

    `retry_after_s` is a whole number of seconds; `queue_position` is the place in the queue that
    the request had, counted from 1, or None.
    """

    retryable = True

    def __init__(
        self, detail: str, retry_after_s: int = 1, queue_position: int | None = None
    ) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.queue_position = queue_position


class QueueFull(Unavailable):
    """Too many requests wait for this model already."""


class KeyPaused(Unavailable):
    """The key has sent requests that killed engines, and must wait."""


class KeyLimitReached(Unavailable):
    """The key has used up what it may use in a minute, or has as many requests under way as it may
    have at once."""


class NoRoom(MyLLMError):
    """The model needs more memory than it can get; all numbers are MiB on `device`."""

    def __init__(self, model: str, device: str, needs_mb: int, has_mb: int, budget_mb: int) -> None:
        where = "memory" if device == "host" else f"memory of {device}"
        super().__init__(
            f"Model '{model}' does not fit: it needs {needs_mb} MB of {where}, at most {has_mb} MB "
            f"can be had, and the budget is {budget_mb} MB; choose a smaller context_size, fewer "
            "slots or a smaller quantization, or raise the budget"
        )
        self.device = device


class InvalidModel(MyLLMError):
    """A model's files cannot be used; the sentence names the file and what is wrong with it."""


class EngineError(MyLLMError):
    """llama-server could not start, died or refused; the sentence carries its cause."""


class EngineDied(EngineError):
    """llama-server ended while it was answering; the next request starts a new one."""

    retryable = True


class ModelReplaced(EngineError):
    """The engine died during an answer, and the files now in the model's folder cannot continue
    it."""

    retryable = True

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The engine of model '{name}' died, and the model's files had been replaced in the "
            "meantime; please ask again"
        )


class EngineMissing(EngineError):
    """No usable llama-server was found."""


class BuildFailed(EngineError):
    """Compiling llama-server failed; the sentence names the log."""


class PullFailed(MyLLMError):
    """A model could not be downloaded completely."""


class InvalidSettings(MyLLMError):
    """A setting has a wrong value, or a file of them cannot be used; the sentence says which."""


class InvalidKeysFile(MyLLMError):
    """The file of API keys cannot be used; the sentence names it, and the line if there is one."""


class StoreFailed(MyLLMError):
    """The store of conversations cannot be read or written; its contents are not lost."""


class ServeFailed(MyLLMError):
    """The server cannot listen, or no server answers where one was expected."""
