"""Decoding the one long text of a JSON object in pieces, in bounded memory; no I/O."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

#: Whole characters and whole escapes; the group is the last escape.
_ESCAPED = re.compile(r'(?:[^"\\]+|(\\(?:u[0-9a-fA-F]{4}|[^u])))*')
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB]")


async def json_text(chunks: AsyncIterator[bytes], key: str) -> AsyncGenerator[str, None]:
    """
    Decode the one text in a JSON object ``{"<key>": "<text>"}`` piece by piece, in bounded memory.

    :param chunks: the body.
    :param key: the object's only key.
    :raises ValueError: the body is not of this form.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    opening = re.compile(rf'\s*{{\s*"{re.escape(key)}"\s*:\s*"')
    buffer, started = "", False
    async for chunk in chunks:
        buffer += decoder.decode(chunk)
        if not started:
            match = opening.match(buffer)
            if match is None:
                if len(buffer) > 1000:
                    break
                continue
            buffer, started = buffer[match.end() :], True
        match = _ESCAPED.match(buffer)
        ready, last = (match.group(), match.group(1)) if match else ("", None)
        if len(ready) < len(buffer) and buffer[len(ready)] == '"':
            yield json.loads(f'"{ready}"', strict=False)
            return
        if last and _HIGH_SURROGATE.match(last) and ready.endswith(last):  # its second half is in the next chunk
            ready = ready[: -len(last)]
        if ready:
            yield json.loads(f'"{ready}"', strict=False)
            buffer = buffer[len(ready) :]
    raise ValueError(f"a cut or malformed answer where the object with {key!r} was expected")
