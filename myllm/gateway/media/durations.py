"""How long a recording is, read from its header."""

from __future__ import annotations

import io
import wave


def duration_s(recording: bytes) -> float | None:
    """Return the seconds of a WAV or FLAC file; None for other formats and broken headers.

    An MP3 has no total in its header: only its frames say how long each of them lasts.
    """
    if recording[:4] == b"fLaC":
        return _of_flac(recording)
    if recording[:4] != b"RIFF":
        return None
    try:
        with wave.open(io.BytesIO(recording)) as file:
            # A recorder that streams does not know the length, and writes the greatest one.
            most = len(recording) // (file.getnchannels() * file.getsampwidth())
            return float(min(file.getnframes(), most) / file.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError):
        return None


def _of_flac(recording: bytes) -> float | None:
    """The first block of a FLAC file has the rate in 20 bits, 8 bits of other things, and the
    number of samples in 36; 0 stands for unknown."""
    fields = int.from_bytes(recording[18:26])
    rate, samples = fields >> 44, fields & (2**36 - 1)
    return samples / rate if len(recording) >= 26 and rate and samples else None
