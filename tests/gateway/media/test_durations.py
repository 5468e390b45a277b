"""The length of recordings, from the headers of real formats and of broken ones."""

from __future__ import annotations

import pytest

from myllm.gateway.media.durations import duration_s
from tests.projectors import wav

WAV = wav(300)


def flac(rate: int, samples: int) -> bytes:
    """The beginning of a FLAC file of one channel with 16 bits."""
    info = rate << 44 | 15 << 36 | samples
    return b"fLaC\x00\x00\x00\x22" + bytes(10) + info.to_bytes(8) + bytes(16)


def test_formats_whose_header_has_the_length() -> None:
    assert duration_s(flac(44_100, 88_200)) == 2.0
    assert duration_s(WAV) == pytest.approx(0.4)
    endless = WAV[:40] + b"\xff\xff\xff\xff" + WAV[44:]
    assert duration_s(endless) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    "recording",
    [
        b"",
        b"ID3\x04\x00" + bytes(100),
        b"RIFF",
        WAV[:30],
        WAV[:24] + bytes(4) + WAV[28:],
        flac(0, 88_200),
        flac(44_100, 0),
        flac(44_100, 88_200)[:20],
    ],
)
def test_what_has_no_length(recording: bytes) -> None:
    assert duration_s(recording) is None
