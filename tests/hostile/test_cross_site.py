"""Requests that a page of another site can make its reader's browser send."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.api.events import detail
from tests.hostile.attacks import others_are_served
from tests.serving import Serving

# Headers that a browser sends for an <img>, a frame, a script and a link: no Origin.
IMAGE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
FRAME = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
# Requests of a page on another port of this machine, or on a sibling domain.
NEIGHBOUR = IMAGE | {"Sec-Fetch-Site": "same-site"}


@pytest.fixture(autouse=True)
def others(server: Serving) -> Iterator[None]:
    """Check in every test of this file that other clients get `/health` and memory is freed."""
    with others_are_served(server):
        yield


@pytest.mark.parametrize("sent", [IMAGE, FRAME, LINK, NEIGHBOUR])
@pytest.mark.parametrize(
    "path", ["/props?model=demo", "/upstream/demo/props", "/upstream/demo/slots", "/api/sessions"]
)
def test_a_page_of_another_site_starts_no_engine(
    api: httpx.Client, server: Serving, path: str, sent: dict[str, str]
) -> None:
    for method in ("GET", "HEAD", "POST"):
        assert api.request(method, path, headers=sent).status_code == 403
    assert "Sec-Fetch-Site" in detail_of(api.get(path, headers=sent))
    assert server.engines() == []


def detail_of(answer: httpx.Response) -> str:
    """The message of an error, in the envelope of any dialect."""
    body = answer.json()
    return str(body["detail"] if "detail" in body else body["error"]["message"])


def test_two_headers_are_no_way_around(api: httpx.Client, server: Serving) -> None:
    for sites in (["same-origin", "cross-site"], ["cross-site", "none"], ["anything"], [""]):
        headers = [("Sec-Fetch-Site", site) for site in sites]
        assert api.get("/props?model=demo", headers=headers).status_code == 403
    assert server.engines() == []


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_pages_and_the_address_bar_are_served(api: httpx.Client, site: str) -> None:
    assert api.get("/api/models", headers={"Sec-Fetch-Site": site}).status_code == 200


def test_programs_are_served(api: httpx.Client) -> None:
    assert api.get("/api/models").status_code == 200


def test_the_documentation_works_and_can_be_linked_to(api: httpx.Client) -> None:
    assert api.get("/docs", headers=LINK).status_code == 200
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}
    for path in ("/swagger/swagger-ui-bundle.js", "/swagger/swagger-ui.css", "/openapi.json"):
        assert api.get(path, headers=own).status_code == 200
    assert "Sec-Fetch-Site" in detail(api.get("/docs", headers=FRAME), 403)


def test_an_origin_header_decides_alone(api: httpx.Client, server: Serving) -> None:
    """A browser calls a form of its own page cross-site when a redirect led through another one."""
    headers = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert api.get("/api/models", headers=headers).status_code == 200
    assert api.get("/api/models", headers=headers | {"Origin": "null"}).status_code == 403
