"""Reading logs: their last lines, and what is added, across rotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myllm.errors import EngineError
from myllm.launcher.local import log_files, output
from myllm.launcher.local.log_files import PIECE_BYTES, TAIL_BYTES, LogFiles
from myllm.launcher.local.output import EngineOutput

NAMES = ["demo.generate", "demo.embed"]


def files(folder: Path, lines: int = 1000, names: Sequence[str] = NAMES) -> LogFiles:
    return LogFiles(folder, names, lines)


def everything(logs: LogFiles) -> str:
    """All that there is to read now."""
    text = ""
    while piece := logs.read():
        text += piece
    return text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, ""), (1, "five\n"), (2, "four\nfive\n"), (5, "one\ntwo\nthree\nfour\nfive\n")],
)
def test_the_last_lines_are_read(tmp_path: Path, lines: int, expected: str) -> None:
    (tmp_path / "demo.generate.log").write_text("one\ntwo\nthree\nfour\nfive\n")
    assert everything(files(tmp_path, lines)) == expected
    assert everything(files(tmp_path, max(lines, 1) * 100)).endswith(expected)


@pytest.mark.parametrize("lines", [1, 2, 3, 4, 5, 6, 7])
def test_the_last_lines_are_found_in_rotated_files(tmp_path: Path, lines: int) -> None:
    (tmp_path / "demo.generate.log.2").write_text("1\n2\n")
    (tmp_path / "demo.generate.log.1").write_text("3\n4\n")
    (tmp_path / "demo.generate.log").write_text("5\n6\n")
    every = [f"{number}\n" for number in range(1, 7)]
    assert everything(files(tmp_path, lines)) == "".join(every[-lines:])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.integers(0, 3 * PIECE_BYTES // 2), max_size=8), st.integers(0, 9), st.integers(1, 4)
)
def test_lines_of_any_length_are_counted(
    tmp_path: Path, lengths: list[int], lines: int, a_file: int
) -> None:
    every = [f"{length} ".ljust(length, "x") for length in lengths]
    parts = [every[:-2:], every[-2:][: 2 - a_file % 2], every[-2:][2 - a_file % 2 :]]
    for end, part in zip((".2", ".1", ""), parts, strict=True):
        (tmp_path / f"demo.generate.log{end}").write_text("".join(f"{line}\n" for line in part))
    read = everything(files(tmp_path, lines))
    assert read == "".join(f"{line}\n" for line in every[len(every) - min(lines, len(every)) :])


def test_the_search_for_the_last_lines_is_bounded(tmp_path: Path) -> None:
    line = "x" * 999
    (tmp_path / "demo.generate.log").write_text(f"{line}\n" * 6000)
    read = everything(files(tmp_path, 5000)).splitlines()
    assert len(read) == TAIL_BYTES // 1000
    assert set(read) == {line}


def test_what_is_added_follows(tmp_path: Path) -> None:
    printed = EngineOutput(tmp_path / "demo.generate.log")
    printed.add(["old"])
    logs = files(tmp_path, 0)
    assert logs.read() == ""
    printed.add(["one", "two"])
    assert (logs.read(), logs.read()) == ("one\ntwo\n", "")
    printed.add(["three"])
    assert logs.read() == "three\n"


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "demo.generate.log"
    logs = files(tmp_path)
    with log.open("w") as writing:
        for text, read in (("on", ""), ("e\ntw", "one\n"), ("o", ""), ("\n", "two\n")):
            writing.write(text)
            writing.flush()
            assert logs.read() == read


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_follower_gets_each_line_once_across_rotations(
    tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "LOG_BYTES", 100)
        printed = EngineOutput(folder / "demo.generate.log")
        logs, number = files(folder, 0), 0
        read = everything(logs)
        for _ in range(data.draw(st.integers(1, 8))):
            # Less than two rotated files hold: what is rotated away unread is lost.
            for _ in range(data.draw(st.integers(0, 3))):
                printed.add([f"line {number:02}".ljust(data.draw(st.integers(7, 60)), ".")])
                number += 1
            read += everything(logs)
    assert [int(line[5:7]) for line in read.splitlines()] == list(range(number))


def test_a_follower_that_is_late_goes_on_with_the_oldest_lines(tmp_path: Path) -> None:
    log = tmp_path / "demo.generate.log"
    log.write_text("read\n")
    logs = files(tmp_path)
    assert everything(logs) == "read\n"
    log.unlink()
    for name, text in ((".2", "1\n"), (".1", "2\n"), ("", "3\n")):
        (tmp_path / f"demo.generate.log{name}").write_text(text)
    assert everything(logs) == "1\n2\n3\n"


def test_a_log_that_an_operator_empties_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "demo.generate.log"
    log.write_text("long and old\n")
    logs = files(tmp_path)
    assert everything(logs) == "long and old\n"
    log.write_text("new\n")
    assert everything(logs) == "new\n"


def test_a_line_says_where_other_lines_begin(tmp_path: Path) -> None:
    for number, name in enumerate(("embed", "generate.2", "generate")):
        log = tmp_path / f"demo.{name}.log"
        log.write_text(f"{name} 1\n{name} 2\n")
        os.utime(log, (number, number))
    assert everything(files(tmp_path, 1)) == (
        "==> demo.embed <==\nembed 2\n"
        "\n==> demo.generate.2 <==\ngenerate.2 2\n"
        "\n==> demo.generate <==\ngenerate 2\n"
    )


def test_a_log_that_appears_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    logs = files(tmp_path, 0)
    assert logs.read() == ""
    (tmp_path / "demo.generate.log").write_text("1\n2\n")
    assert everything(logs) == "1\n2\n"
    (tmp_path / "demo.embed.log").write_text("3\n")
    assert everything(logs) == "\n==> demo.embed <==\n3\n"


@pytest.mark.parametrize(
    "other",
    [
        *("demo.log", "demox.generate.log", "xdemo.generate.log", "demo.generate.generate.log"),
        *("demo-generate.log", "demo.generate.x.log", "demo.generate.log.bak", "demo.rerank.log"),
    ],
)
def test_logs_of_other_engines_are_not_read(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_text("not demo's\n")
    logs = files(tmp_path)
    assert (logs.exist(), logs.read()) == (False, "")


@pytest.mark.parametrize("name", ["..", "../demo", ".*", "demo|x", "", "/etc", "a\nb", "[", "*"])
def test_a_name_is_not_a_pattern_and_not_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "logs").mkdir()
    for place in (tmp_path, tmp_path / "logs"):
        (place / "demo.generate.log").write_text("demo's\n")
    assert not files(tmp_path / "logs", names=[f"{name}.generate"]).exist()


def test_control_characters_and_wrong_bytes_are_harmless(tmp_path: Path) -> None:
    (tmp_path / "demo.generate.log").write_bytes(b"a\tb\x1b]0;t\x07\r\xff \xe2\x80\xae\n")
    expected = "a\tb\\x1b]0;t\\x07\\x0d\N{REPLACEMENT CHARACTER} \\u202e\n"
    assert everything(files(tmp_path)) == expected


def test_without_a_folder_there_is_nothing(tmp_path: Path) -> None:
    logs = files(tmp_path / "none")
    assert (logs.exist(), logs.read()) == (False, "")


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.generate.log").mkdir()
    with pytest.raises(EngineError, match=r"demo\.generate\.log cannot be read: Is a directory"):
        files(tmp_path).read()


def test_files_are_closed(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / "demo.generate.log").write_text("1\n")
    before = count()
    for _ in range(5):
        logs = files(tmp_path)
        everything(logs)
        logs.close()
    assert count() == before


def test_a_piece_is_not_much_longer_than_it_should(tmp_path: Path) -> None:
    (tmp_path / "demo.generate.log").write_text("x" * (10 * log_files.PIECE_BYTES))
    logs = files(tmp_path)
    assert max(len(piece) for piece in iter(logs.read, "")) <= 2 * log_files.PIECE_BYTES
