"""The routes of API keys, for admins: list, create, change, rotate and revoke them.

A change counts from the answer on in the store; servers that use it notice it within two seconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.native.key_schemas import (
    ChangedKey,
    KeyChanges,
    KeyPage,
    NewKey,
    NewKeyRequest,
    ShownKey,
    rules_of,
    shown,
)
from myllm.api.shared.bounded import Name
from myllm.api.shared.dependencies import AdminDep, KeysDep, RegistryDep, SettingsDep
from myllm.errors import Conflict, InvalidModel, NotFound
from myllm.gateway.client import Client
from myllm.gateway.key_limits.scope import Scope
from myllm.models.registry import Registry
from myllm.sessions.keys import Key, KeyRules, KeyStore
from myllm.settings import Settings

router = APIRouter(prefix="/api/keys", tags=["Keys"], route_class=CheckedRoute)

_log = structlog.get_logger(__name__)
_Force = Annotated[
    bool, Query(description="Even if afterwards no admin key works, or none as long as before.")
]


@router.get("", response_model=None, responses={200: {"model": KeyPage}})
async def list_keys(
    admin: AdminDep,
    keys: KeysDep,
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 100,
    cursor: Annotated[Name, Query(description="`next_cursor` of the page before.")] = "",
) -> dict[str, Any]:
    """List the keys by name, and where the next page begins."""
    found, now = await keys.page(cursor, limit + 1), time.time()
    page = found[:limit]
    following = page[-1].name if len(found) > limit else None
    return {"keys": [shown(key, now) for key in page], "next_cursor": following}


@router.post("", status_code=201, response_model=None, responses={201: {"model": NewKey}})
async def create_key(
    body: NewKeyRequest,
    keys: KeysDep,
    registry: RegistryDep,
    settings: SettingsDep,
    admin: AdminDep,
    response: Response,
    force: _Force = False,
) -> dict[str, Any]:
    """Create a key, and show it once. With the hash of a key that has this name already, nothing
    changes, and the status is 200."""
    rules, keep = KeyRules(**rules_of(body)), _keeps_an_admin(settings, force)
    secret = None
    if body.sha256 is None:
        key, secret = await keys.create(body.name, rules, keep_admin=keep)
    else:
        sha256 = bytes.fromhex(body.sha256)
        try:
            key = await keys.add_hashed(body.name, sha256, rules, keep_admin=keep)
        except Conflict as conflict:
            key = await _same(keys, body.name, sha256, conflict)
            response.status_code = 200
    if response.status_code != 200:
        _note("API key created", key, admin)
    response.headers["Cache-Control"] = "no-store"
    warnings = await asyncio.to_thread(_unmatched, key.models, registry)
    return shown(key, time.time()) | {"warnings": warnings, "key": secret}


@router.get("/{name}", response_model=None, responses={200: {"model": ShownKey}})
async def show_key(name: str, admin: AdminDep, keys: KeysDep) -> dict[str, Any]:
    """Show what a key may do, and when it was used last."""
    return shown(await keys.get(name), time.time())


@router.patch("/{name}", response_model=None, responses={200: {"model": ChangedKey}})
async def change_key(
    name: str,
    body: KeyChanges,
    keys: KeysDep,
    registry: RegistryDep,
    settings: SettingsDep,
    admin: AdminDep,
    force: _Force = False,
) -> dict[str, Any]:
    """Change what a key may do; the fields that are left out stay as they are."""
    keep = _keeps_an_admin(settings, force)
    key = await keys.update(name, rules_of(body), keep_admin=keep)
    _note("API key changed", key, admin)
    patterns = () if body.models is None else key.models
    warnings = await asyncio.to_thread(_unmatched, patterns, registry)
    return shown(key, time.time()) | {"warnings": warnings}


@router.delete("/{name}")
async def revoke_key(
    name: str, keys: KeysDep, settings: SettingsDep, admin: AdminDep, force: _Force = False
) -> dict[str, str]:
    """Revoke a key; answers that it is getting now are finished."""
    key = await keys.get(name)
    await keys.revoke(name, keep_admin=_keeps_an_admin(settings, force))
    _note("API key revoked", key, admin)
    return {"status": "success", "message": f"Key '{key.name}' revoked"}


@router.post("/{name}/rotate", response_model=None, responses={200: {"model": NewKey}})
async def rotate_key(
    name: str, keys: KeysDep, admin: AdminDep, response: Response
) -> dict[str, Any]:
    """Replace a key by a new one with the same name and rules, and show it once."""
    key, secret = await keys.rotate(name)
    _note("API key rotated", key, admin)
    response.headers["Cache-Control"] = "no-store"
    return shown(key, time.time()) | {"warnings": [], "key": secret}


def _keeps_an_admin(settings: Settings, force: bool) -> bool:
    """Whether an admin's key must be left: the settings have none, and the client does not force
    the change."""
    return not force and settings.admin_key is None and settings.admin_key_file is None


async def _same(keys: KeyStore, name: str, sha256: bytes, conflict: Conflict) -> Key:
    """Return the stored key of this name and hash; if there is none, raise `conflict`."""
    try:
        key = await keys.get(name)
    except NotFound:
        raise conflict from None
    if key.sha256 != sha256:
        raise conflict
    return key


def _unmatched(patterns: tuple[str, ...], registry: Registry) -> list[str]:
    """One sentence for each pattern that matches no model of this server."""
    if not patterns:
        return []
    try:
        aliases = registry.aliases()
    except InvalidModel:  # the key is stored by now, so its answer must not fail
        return []
    return [
        f"No model here matches '{pattern}'"
        for pattern in patterns
        if not any(Scope((pattern,)).has(*names) for names in aliases.items())
    ]


def _note(event: str, key: Key, admin: Client) -> None:
    _log.info(event, key=key.name, role=key.role, by=admin.key_name)
