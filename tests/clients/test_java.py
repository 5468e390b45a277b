"""The HTTP client of the JDK, unmodified: it offers HTTP/2 with each request, as .NET's can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.conftest import TOOLED, Isolated
from tests.clients.questions import PARIS, TOOL

pytestmark = [
    pytest.mark.more,
    pytest.mark.needs_java,
    pytest.mark.needs_network_namespace,
    pytest.mark.timeout(400),
]
PROGRAM = Path(__file__).parent / "java" / "Client.java"


def test_all_of_it(isolated_server: Isolated, tmp_path: Path) -> None:
    url = isolated_server.server.url
    done = isolated_server.network.run(
        ["java", PROGRAM, "demo", TOOLED, json.dumps(TOOL)], home=tmp_path, MYLLM_URL=url
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("200 HTTP_1_1") == 3
    assert [line for line in lines if line.startswith(("whole", "streamed", "end"))] == [
        f"whole: {PARIS}",
        f"streamed: {PARIS}",
        "end: data: [DONE]",
    ]
    [called] = [line for line in lines if line.startswith("called: weather ")]
    arguments = json.loads('"' + called.removeprefix("called: weather ") + '"')
    assert json.loads(arguments) == {"city": "Paris"}
    [second] = [line for line in lines if line.startswith("second: ")]
    assert len(second) > len("second: ")
    assert "nothing in" not in second
