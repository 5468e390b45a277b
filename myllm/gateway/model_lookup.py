"""Finds the model that a request names, and checks that the model can serve the request."""

from __future__ import annotations

from myllm.errors import InvalidRequest
from myllm.gateway.gateway import Gateway
from myllm.models.registry import Model
from myllm.supervisor.spec import Role, main_role


async def model_for(gateway: Gateway, name: str, role: Role) -> Model:
    """The model called `name`.

    Raises ModelNotFound, and InvalidRequest when the model is not made for `role`.
    """
    model = await gateway.models.find(name, role)
    if not serves(model, role):
        raise InvalidRequest(_WHAT_IT_IS[main_role(model)].format(name))
    return model


async def chatting_model(gateway: Gateway, name: str) -> Model:
    """The model called `name`, to answer a conversation.

    Raises what `model_for` raises, and InvalidRequest when it has no chat template.
    """
    model = await model_for(gateway, name, "generate")
    if model.chat_problem is not None:
        raise InvalidRequest(model.chat_problem)
    return model


def serves(model: Model, role: Role) -> bool:
    """Whether `model` can have `role`: a generating model can embed as well."""
    own = main_role(model)
    return own == role or (own == "generate" and role == "embed")


async def named(gateway: Gateway, name: str, role: Role | None = None) -> str:
    """`name`, or if it is empty the only model that can be meant: of the models that can have
    `role`, the only one that is loaded, else the only one on disk.

    Raises InvalidRequest when none can be meant, or several.
    """
    if name:
        return name
    running = [m.name for m in gateway.models.running() if role is None or serves(m, role)]
    if len(running) == 1:
        return running[0]
    models = await gateway.models.all()
    able = [m.name for m in models if m.problem is None and (role is None or serves(m, role))]
    if len(able) == 1:
        return able[0]
    listed = ", ".join(able) if able else "none that can do this"
    raise InvalidRequest(f"model is required, for it could be any of these: {listed}")


_WHAT_IT_IS: dict[Role, str] = {
    "generate": "Model '{}' is not a reranker: its file does not name the pooling type 'rank'",
    "embed": "Model '{}' makes embeddings only; use it with POST /api/embeddings",
    "rerank": "Model '{}' scores documents only; use it with POST /v1/rerank",
}
