"""`data:` URLs and base64, as clients send them and as engines read them."""

from __future__ import annotations

import re
import string
from typing import Final

from myllm.errors import InvalidRequest

# What stands before the comma; an expression over megabytes of base64 would take seconds.
_DATA_URL: Final = re.compile(r"data:(\w+)/([\w.+-]+)(?:;[\w.+=-]+)*;base64", re.I)
_LONGEST_TYPE: Final = 512
_LETTERS: Final = (string.ascii_letters + string.digits + "+/").encode()
_SPACES: Final = string.whitespace.encode()
# Letters that are looked at without letting other threads run.
_AT_ONCE: Final = 1 << 18


def read_data_url(url: str, where: str) -> tuple[str, str]:
    """Return the medium of a `data:` URL, and the same URL without what engines do not read.

    Raises InvalidRequest, which says where the URL was found.
    """
    comma = url.find(",", 0, _LONGEST_TYPE)
    found = _DATA_URL.fullmatch(url, 0, comma) if comma > 0 else None
    if found is None:
        raise InvalidRequest(f"{where} must be a data: URL, such as data:image/png;base64,iVBO...")
    medium = found[1].lower()
    return medium, f"data:{medium}/{found[2]};base64,{checked_base64(url[comma + 1 :], where)}"


def checked_base64(text: str, where: str) -> str:
    """Return `text` without the line ends that some programs write; an engine would stop at the
    first letter that it does not know. In pieces, between which others may run.

    Raises InvalidRequest for anything else, and for nothing.
    """
    pieces, rest = [], b""
    for start in range(0, len(text), _AT_ONCE):
        try:
            piece = text[start : start + _AT_ONCE].encode("ascii").translate(None, _SPACES)
        except UnicodeEncodeError:
            raise _invalid_base64(where) from None
        rest += piece.translate(None, _LETTERS)
        if len(rest) > 2:
            raise _invalid_base64(where)
        pieces.append(piece)
    data = b"".join(pieces)
    if len(data) % 4 or rest.strip(b"=") or not data.endswith(rest):
        raise _invalid_base64(where)
    if not data:
        raise InvalidRequest(f"{where} must not be empty")
    return data.decode()


def _invalid_base64(where: str) -> InvalidRequest:
    return InvalidRequest(f"{where} is not valid base64")
