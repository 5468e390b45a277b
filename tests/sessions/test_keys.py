"""The store of API keys, on both databases."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from myllm.errors import Conflict, InvalidRequest, NotFound
from myllm.sessions.keys import Key, KeyRules, KeyStore, checked_name, hash_of
from myllm.sessions.store import SessionStore
from myllm.sessions.tables import keys as table

RULES = KeyRules(
    role="admin",
    models=("demo", "qwen*"),
    requests_per_minute=60,
    tokens_per_minute=1_000_000,
    concurrent_requests=4,
    max_priority=3,
    expires=time.time() + 3600,
)


@pytest.fixture
def keys(store: SessionStore) -> KeyStore:
    return KeyStore(store.database)


async def test_a_key_keeps_its_rules_and_its_secret_is_not_stored(keys: KeyStore) -> None:
    before = time.time()
    key, secret = await keys.create("ann", RULES)
    assert await keys.all() == [key] == [await keys.get("ann")]
    assert (key.name, key.sha256, key.last_used) == ("ann", hash_of(secret), None)
    assert before <= key.created <= time.time()
    assert {name: getattr(key, name) for name in vars(RULES)} == vars(RULES)
    assert secret not in repr(key)


async def test_a_new_key_has_no_limits_and_may_use_every_model(keys: KeyStore) -> None:
    key, _ = await keys.create("ann", KeyRules())
    limits = key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests
    assert (key.role, key.models, limits) == ("user", (), (None, None, None))
    assert (key.max_priority, key.expires, key.disabled) == (0, None, False)


async def test_each_change_changes_the_number_and_a_use_does_not(keys: KeyStore) -> None:
    numbers = [await keys.change_number()]
    await keys.create("ann", KeyRules())
    numbers.append(await keys.change_number())
    await keys.update("ann", {"disabled": True})
    numbers.append(await keys.change_number())
    await keys.rotate("ann")
    numbers.append(await keys.change_number())
    await keys.note_used({"ann": 5.0})
    assert await keys.change_number() == numbers[-1]
    await keys.revoke("ann")
    numbers.append(await keys.change_number())
    assert numbers == [0, 1, 2, 3, 4]


async def test_a_change_that_is_refused_changes_nothing(keys: KeyStore) -> None:
    key, _ = await keys.create("ann", RULES)
    number = await keys.change_number()
    for refused in (
        keys.create("ann", KeyRules()),
        keys.add_hashed("bob", key.sha256),
    ):
        with pytest.raises(Conflict):
            await refused
    for missing in (keys.update("bob", {}), keys.rotate("bob"), keys.revoke("bob"), keys.get("b")):
        with pytest.raises(NotFound, match="no key 'b"):
            await missing
    assert (await keys.all(), await keys.change_number()) == ([key], number)


async def test_only_the_given_fields_change(keys: KeyStore) -> None:
    key, _ = await keys.create("ann", RULES)
    changed = await keys.update("ann", {"requests_per_minute": None, "models": ("other",)})
    assert changed == await keys.get("ann")
    wanted = vars(key) | {"requests_per_minute": None, "models": ("other",)}
    assert vars(changed) == wanted


async def test_a_rotated_key_has_a_new_secret_and_the_same_rules(keys: KeyStore) -> None:
    key, old = await keys.create("ann", RULES)
    rotated, new = await keys.rotate("ann")
    assert new != old
    assert vars(rotated) == vars(key) | {"sha256": hash_of(new)}


async def test_a_revoked_name_can_be_used_again(keys: KeyStore) -> None:
    await keys.create("ann", RULES)
    await keys.revoke("ann")
    assert await keys.all() == []
    key, _ = await keys.create("ann", KeyRules())
    assert key.role == "user"


async def test_the_time_of_the_last_use_never_goes_back(keys: KeyStore) -> None:
    await keys.create("ann", KeyRules())
    for used in (100.0, 50.0):
        await keys.note_used({"ann": used, "gone": used})
    await keys.note_used({})
    assert (await keys.get("ann")).last_used == 100.0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"role": "root"}, "role must be one of user, admin, metrics"),
        ({"models": ("",)}, "1 to 256 printable letters"),
        ({"models": ("a\nb",)}, "1 to 256 printable letters"),
        ({"models": ("x" * 257,)}, "1 to 256 printable letters"),
        ({"models": ("qwen[3",)}, r"'qwen\[3' is no pattern"),
        ({"models": ("a",) * 257}, "at most 256 entries"),
        ({"requests_per_minute": -1}, "requests_per_minute must be 1 to"),
        ({"requests_per_minute": 0}, "requests_per_minute must be 1 to"),
        ({"tokens_per_minute": -5}, "tokens_per_minute must be 1 to"),
        ({"tokens_per_minute": 2**31}, "tokens_per_minute must be 1 to"),
        ({"concurrent_requests": -1}, "concurrent_requests must be 1 to"),
        ({"max_priority": 11}, "max_priority must be -10 to 10"),
        ({"expires": float("nan")}, "expires must be a time"),
        ({"expires": float("inf")}, "expires must be a time"),
        ({"expires": 1.0}, "expires must be in the future"),
    ],
)
async def test_rules_that_make_no_sense_are_refused(
    keys: KeyStore, wrong: dict[str, Any], told: str
) -> None:
    key, _ = await keys.create("ann", KeyRules())
    with pytest.raises(InvalidRequest, match=told):
        await keys.create("bob", KeyRules(**wrong))
    with pytest.raises(InvalidRequest, match=told):
        await keys.update("ann", wrong)
    assert await keys.all() == [key]


async def test_only_rules_can_be_changed(keys: KeyStore) -> None:
    await keys.create("ann", KeyRules())
    for field in ("name", "sha256", "created", "nonsense"):
        with pytest.raises(InvalidRequest, match=f"no '{field}' that can be changed"):
            await keys.update("ann", {field: 1})


@pytest.mark.parametrize(
    "name", ["ann", "Zoë", "हिन्दी", "李", "a.b_c-d@example.com", "1", "x" * 64]
)
def test_names_may_be_of_any_script(name: str) -> None:
    assert checked_name(name) == name


def test_a_name_has_one_form() -> None:
    assert checked_name("Zoe\N{COMBINING DIAERESIS}") == "Zoë"


async def test_a_key_is_no_name_and_no_error_repeats_it(keys: KeyStore) -> None:
    _, secret = await keys.create("ann", KeyRules())
    with pytest.raises(InvalidRequest, match="a key and not its name") as refused:
        await keys.revoke(secret)
    assert secret not in refused.value.detail


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", ".a", "-rf", "a/b", "a:b", "a\nb", "a\0", "\u202ea", "\ud800"]
)
async def test_other_names_are_refused(keys: KeyStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="a key's name is 1 to 64 letters"):
        await keys.create(name, KeyRules())
    with pytest.raises(InvalidRequest, match="a key's name is 1 to 64 letters"):
        await keys.get(name)


async def test_two_servers_that_change_one_key_keep_both_changes(keys: KeyStore, url: str) -> None:
    other = SessionStore(url)
    await other.start()
    theirs = KeyStore(other.database)
    await keys.create("ann", KeyRules())
    await asyncio.gather(
        *(keys.update("ann", {"requests_per_minute": n}) for n in range(1, 9)),
        *(theirs.update("ann", {"tokens_per_minute": n}) for n in range(1, 9)),
    )
    key = await theirs.get("ann")
    assert None not in (key.requests_per_minute, key.tokens_per_minute)
    assert key == await keys.get("ann")
    assert await keys.change_number() == 17 == await theirs.change_number()
    await other.close()


async def test_of_two_servers_that_create_one_key_the_second_is_refused(
    keys: KeyStore, url: str
) -> None:
    other = SessionStore(url)
    await other.start()
    theirs = KeyStore(other.database)
    made = await asyncio.gather(
        *(each.create("ann", KeyRules()) for each in (keys, theirs) * 4), return_exceptions=True
    )
    failed = [each for each in made if isinstance(each, BaseException)]
    assert [type(each) for each in failed] == 7 * [Conflict]
    assert len(await theirs.all()) == 1
    await other.close()


async def test_keys_are_read_in_pages(keys: KeyStore, store: SessionStore) -> None:
    names = [f"k{number:05}" for number in range(1200)]
    rows = [vars(Key(name=name, sha256=hash_of(name), created=1.0)) for name in names]
    database = await store.database()
    await database.write(lambda connection: connection.execute(table.insert(), rows))
    pages = [page async for page in keys.pages()]
    assert [len(page) for page in pages] == 6 * [200]
    assert [key.name for page in pages for key in page] == names


async def test_a_page_begins_behind_a_name(keys: KeyStore) -> None:
    for name in ("bob", "ann", "zoe", "cid"):
        await keys.create(name, KeyRules())
    assert [key.name for key in await keys.page("", 2)] == ["ann", "bob"]
    assert [key.name for key in await keys.page("bob", 2)] == ["cid", "zoe"]
    assert await keys.page("zoe", 2) == []


async def test_the_last_admin_is_kept(keys: KeyStore) -> None:
    admin = KeyRules(role="admin")
    with pytest.raises(Conflict, match="The first key must be an admin's"):
        await keys.create("bob", KeyRules(), keep_admin=True)
    assert await keys.all() == []
    key, _ = await keys.create("ann", admin, keep_admin=True)
    user, _ = await keys.create("bob", KeyRules(), keep_admin=True)
    number = await keys.change_number()
    for refused in (
        keys.revoke("ann", keep_admin=True),
        keys.update("ann", {"role": "user"}, keep_admin=True),
        keys.update("ann", {"disabled": True}, keep_admin=True),
    ):
        with pytest.raises(Conflict, match="the last admin key that works"):
            await refused
    assert (await keys.all(), await keys.change_number()) == ([key, user], number)
    await keys.update("ann", {"requests_per_minute": 5}, keep_admin=True)
    await keys.create("cid", replace(admin, disabled=True))
    with pytest.raises(Conflict):  # a disabled admin can manage nothing
        await keys.revoke("ann", keep_admin=True)
    await keys.create("eve", admin)
    await keys.revoke("ann", keep_admin=True)
    await keys.revoke("eve")  # forced
    await keys.update("bob", {"disabled": True}, keep_admin=True)  # nothing more is lost by that


async def test_the_admin_key_that_works_longest_is_kept(keys: KeyStore) -> None:
    soon, late = time.time() + 60, time.time() + 3600
    admin = KeyRules(role="admin")
    with pytest.raises(Conflict, match="The first key must be an admin's that never expires"):
        await keys.create("ann", replace(admin, expires=late), keep_admin=True)
    await keys.create("ann", admin, keep_admin=True)
    await keys.create("cid", replace(admin, expires=soon), keep_admin=True)
    for refused in (
        keys.update("ann", {"expires": late}, keep_admin=True),
        keys.update("ann", {"disabled": True}, keep_admin=True),
        keys.revoke("ann", keep_admin=True),
    ):
        with pytest.raises(Conflict, match="No other admin key works as long"):
            await refused
    await keys.create("bob", admin, keep_admin=True)
    await keys.update("ann", {"expires": late}, keep_admin=True)  # bob's works forever
    await keys.revoke("bob")  # forced, so ann's works longest
    with pytest.raises(Conflict, match="No other admin key works as long"):
        await keys.update("ann", {"expires": soon - 1}, keep_admin=True)
    await keys.update("ann", {"expires": late + 60}, keep_admin=True)
    await keys.revoke("cid", keep_admin=True)
    with pytest.raises(Conflict, match="the last admin key that works"):
        await keys.update("ann", {"role": "user"}, keep_admin=True)
    await keys.update("ann", {"expires": None}, keep_admin=True)


async def test_of_two_admins_that_remove_each_other_one_stays(keys: KeyStore, url: str) -> None:
    other = SessionStore(url)
    await other.start()
    theirs = KeyStore(other.database)
    for name in ("ann", "bob"):
        await keys.create(name, KeyRules(role="admin"))
    ended = await asyncio.gather(
        keys.revoke("ann", keep_admin=True),
        theirs.update("bob", {"role": "user"}, keep_admin=True),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Conflict) for each in ended) == 1
    assert sum(key.role == "admin" for key in await keys.all()) == 1
    await other.close()


def test_a_key_is_valid_until_it_expires_or_is_disabled() -> None:
    key = Key(name="a", sha256=b"", created=1.0)
    assert key.is_valid(1e12)
    expiring = Key(name="a", sha256=b"", created=1.0, expires=100.0)
    assert [expiring.is_valid(now) for now in (99.9, 100.0, 99.0)] == [True, False, True]
    assert not Key(name="a", sha256=b"", created=1.0, disabled=True).is_valid(1.0)
