"""Questions to a model's engine that generate nothing: its properties, tokens and chat template.

A question waits its turn like every request, and leaves the content of the slots alone. It raises
what a lease raises, and the engine's own error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from myllm.gateway.engine_io import calls, transport
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.retries import with_retries
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.models.registry import Model
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, main_role

_T = TypeVar("_T")


async def query(
    gateway: Gateway,
    request: RequestInfo,
    model: Model,
    path: str,
    body: dict[str, Any] | None = None,
) -> bytes:
    """Return the answer of the engine of `model`, in its main role, to a GET of `path`, or to a
    POST if there is a `body`."""
    demand = Demand(path, body or {})
    return await _answer(
        gateway, request, model, demand, lambda engine: transport.fetch(engine, path, body)
    )


async def render_chat(
    gateway: Gateway, request: RequestInfo, model: Model, body: dict[str, Any]
) -> str:
    """Return the prompt that the chat template of `model` renders from a chat's `body`.

    Raises InvalidRequest when the template refuses it.
    """

    async def render(instance: Instance) -> str:
        return await calls.apply_template(instance, await _fitted(gateway, request, instance, body))

    demand = Demand("/apply-template", body)
    return await _answer(gateway, request, model, demand, render)


async def count_chat_tokens(
    gateway: Gateway, request: RequestInfo, model: Model, body: dict[str, Any]
) -> int:
    """Return the number of tokens in the prompt of a chat's `body`, images included."""

    async def count(instance: Instance) -> int:
        return await calls.count_chat(instance, await _fitted(gateway, request, instance, body))

    demand = Demand("/v1/chat/completions/input_tokens", body)
    return await _answer(gateway, request, model, demand, count)


async def _fitted(
    gateway: Gateway, request: RequestInfo, instance: Instance, body: dict[str, Any]
) -> dict[str, Any]:
    fitted = await gateway.templates.fitted(instance, body["messages"], request.ignored)
    return {**body, "messages": fitted}


async def _answer(
    gateway: Gateway,
    request: RequestInfo,
    model: Model,
    demand: Demand,
    question: Callable[[Instance], Awaitable[_T]],
) -> _T:
    ticket = request.ticket(InstanceKey(model.name, main_role(model)), demand)
    ticket.only_asks = True

    async def work(lease: Lease) -> _T:
        return await question(lease.instance)

    return await with_retries(gateway, ticket, work)
