"""Whose sessions a request is about: those of its own client, unless an admin names another."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Query

from myllm.api.shared.bounded import Name
from myllm.api.shared.dependencies import ClientDep, check_admin
from myllm.gateway.client import ADMIN_KEY, LOCAL_OWNER, owner_of
from myllm.sessions.keys import checked_name

_EVERYONE: Final = "*"
# No keys can have these names.
_WITHOUT_KEY: Final = "(local)"
_DESCRIPTION: Final = (
    "For admins: the name of the key whose sessions are meant, `(admin)` for the admin key's, "
    "`(local)` for those from before there were keys. Default: your own."
)


def name_of(owner: str) -> str:
    """Return an owner's name, by which a request can ask for its sessions."""
    return _WITHOUT_KEY if owner == LOCAL_OWNER else owner.removeprefix(owner_of(""))


async def _owner(
    client: ClientDep, owner: Annotated[Name | None, Query(description=_DESCRIPTION)] = None
) -> str:
    if owner is None:
        return client.owner
    check_admin(client)
    if owner == _WITHOUT_KEY:
        return LOCAL_OWNER
    return owner_of(owner if owner == ADMIN_KEY else checked_name(owner))


async def _owner_or_everyone(
    client: ClientDep,
    owner: Annotated[Name | None, Query(description=f"{_DESCRIPTION} `*`: all sessions.")] = None,
) -> str | None:
    if owner != _EVERYONE:
        return await _owner(client, owner)
    check_admin(client)
    return None


# The owner of the sessions that a request is about; of a list None stands for all owners.
OwnerDep = Annotated[str, Depends(_owner)]
OwnersDep = Annotated[str | None, Depends(_owner_or_everyone)]
