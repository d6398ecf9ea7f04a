"""Reading the list of all jobs, which grows without bound, in pieces and in bounded memory."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.exceptions import RayJobsError, RayProtocolError
from airflow_provider_rayjobs.protocol import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_rayjobs.protocol import Flow
    from airflow_provider_rayjobs.transport import AiohttpTransport

LIST_PATH = "/api/jobs/"

#: Counts all actors that the head remembers and returns none. Each submitted job has one of its own, so this tells at
#: the cost of one look about how many jobs are on record. (Ray's state API, ``dashboard/modules/state/state_head.py``.)
ACTORS_PATH = "/api/v0/actors?limit=1&filter_keys=state&filter_predicates=%3D&filter_values=RESTARTING"

_GAP = re.compile(r"[\s,\[]*")


async def read_list(transport: AiohttpTransport, take: Callable[[dict[str, Any]], None]) -> int:
    """
    Read the list of all jobs (``GET /api/jobs/``).

    :param transport: the cluster.
    :param take: takes each job, as decoded JSON.
    :return: how many there are.
    :raises RayJobsError: no answer, or none of the Jobs API.
    """
    async with transport.body(LIST_PATH) as chunks:
        try:
            return await _read(chunks, take)
        except (ValueError, LookupError) as e:
            raise RayProtocolError(f"{transport.cluster.address}: {LIST_PATH} is no list of jobs: {e}") from e


async def _read(chunks: AsyncIterator[bytes], take: Callable[[dict[str, Any]], None]) -> int:
    decoder, decode = codecs.getincrementaldecoder("utf-8")(errors="replace"), json.JSONDecoder().raw_decode
    buffer, number = "", 0
    async for chunk in chunks:
        buffer += decoder.decode(chunk)
        if number == 0 and buffer.lstrip()[:1] not in ("", "["):
            raise ValueError("it begins with no bracket")
        start = 0
        while (at := _end_of_gap(buffer, start)) < len(buffer) and buffer[at] != "]":
            try:
                job, start = decode(buffer, at)
            except ValueError:
                break  # the rest of it is in the next chunk
            if not isinstance(job, dict):
                raise ValueError("it holds other things than objects")
            take(job)
            number += 1
        buffer = buffer[start:]
        await asyncio.sleep(0)  # a long list must not starve the event loop
    if not buffer.endswith("]"):
        raise ValueError("it is cut")
    return number


def _end_of_gap(text: str, start: int) -> int:
    match = _GAP.match(text, start)
    return match.end() if match else start


def count_actors() -> Flow[int | None]:
    """Read about how many jobs the cluster ever had, or None where it does not tell."""
    try:
        response = yield Request("GET", ACTORS_PATH, repeatable=False)
    except RayJobsError:
        return None
    try:
        total = json.loads(response.text)["data"]["result"]["total"]
    except (ValueError, LookupError, TypeError):
        return None
    return total if isinstance(total, int) else None
