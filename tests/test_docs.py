"""The links, names and commands on the pages of documentation exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi.routing import APIRoute

from myllm.api.dialects import DIALECTS
from myllm.api.native import health
from myllm.cli.main import app
from tests.pages import DOCS, PAGES, README, ROOT, prose, scripts

MAX_BYTES_OF_README = 12_000
_ROUTE = re.compile(r"`(?:(GET|POST|PATCH|DELETE) )?(/[^`?]*)`")


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= MAX_BYTES_OF_README


def test_the_readme_links_every_page() -> None:
    assert {relative(page) for page in DOCS} <= set(re.findall(r"\]\(([^)#]+)", prose(README)))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_something(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not link.startswith(("http://", "https://")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def _routes() -> set[str]:
    routers = [router for dialect in DIALECTS for router in dialect.routers()]
    return {
        f"{method} {re.sub(r':path}', '}', route.path)}"
        for router in [health.router, *routers]
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }


def _documented() -> set[str]:
    """The routes in the tables of the pages; a path without a method has the one before it."""
    found = set()
    for page in ("api.md", "clients.md"):
        for row in re.findall(r"^\|? ?(`(?:GET|POST|PATCH|DELETE) .+)$", _page(page), re.MULTILINE):
            method = ""
            for named, path in _ROUTE.findall(row.split(" | ")[0]):
                method = named or method
                found.add(f"{method} {path}")
    return found


def _page(name: str) -> str:
    return prose(ROOT / "docs" / name)


def test_the_pages_have_every_route_and_no_other() -> None:
    known = {re.sub(r"{[^}]+}", "{}", route) for route in _routes()}
    documented = {re.sub(r"{[^}]+}", "{}", route) for route in _documented()}
    undescribed = {"GET /docs", "GET /openapi.json", "GET /ollama"}
    assert (known - documented, documented - known) == (set(), undescribed)


def _mentions() -> list[str]:
    """`path/file.py: name`, `path/file.py` and `path/` on the page about the architecture."""
    return sorted(set(re.findall(r"`([\w/]+\.py(?:: [\w.]+)?|[\w/]+/)`", _page("architecture.md"))))


def test_the_architecture_page_has_every_folder() -> None:
    folders = {
        f"{path.parent.relative_to(ROOT / 'myllm')}/"
        for path in (ROOT / "myllm").glob("**/__init__.py")
        if not {"migrations", "chat_templates", "builtin"} & set(path.parts)
    }
    assert folders - {"./"} <= set(_mentions())


@pytest.mark.parametrize("mention", _mentions())
def test_what_the_architecture_page_names_exists(mention: str) -> None:
    path, _, name = mention.partition(": ")
    file = next((root / path for root in (ROOT / "myllm", ROOT) if (root / path).exists()), None)
    assert file is not None, f"no file {path}"
    body: list[ast.stmt] = ast.parse(file.read_text()).body if name else []
    for part in name.split(".") if name else []:
        found = [each for each in body if part in _defined(each)]
        assert found, f"{path} has no {name}"
        body = getattr(found[0], "body", [])


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module or class defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return {each.id for each in targets if isinstance(each, ast.Name)}


def _commands() -> list[str]:
    """Each use of `myllm` in a block of commands."""
    return sorted(
        {
            found
            for page in PAGES
            for script in scripts(page)
            for line in script.script.replace("\\\n", " ").splitlines()
            for found in re.findall(r"(?:^|[|;] |scripts/|keys )(myllm .+)", line.split(" #")[0])
        }
        | set(re.findall(r"`(myllm [^`]+)`", _page("command-line.md").replace("\\|", "")))
    )


@pytest.mark.parametrize("command", _commands())
def test_a_command_and_its_options_exist(command: str) -> None:
    _, *words = shlex.split(re.sub(r"[][]", "", re.split(r" [|>] ", command)[0]))
    here: Any = typer.main.get_command(app)
    for word in words:
        if hasattr(here, "commands") and word.islower() and not word.startswith("-"):
            assert word in here.commands, f"no command {word}"
            here = here.commands[word]
        elif word.startswith("--"):
            assert word in {name for each in here.params for name in each.opts}, f"no option {word}"
