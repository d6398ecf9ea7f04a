"""
Masks the secrets of one job in the job's own text: its log, Ray's message, and its function's error.

Airflow's masker is not used for them: it never forgets a secret, masks in the text of all tasks of a process, and gets
slower with each secret. Here, a job can hide words only in its own text.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from airflow_provider_rayjobs.text.safe_text import login_in

#: Shorter secrets, and shorter lines of a multi-line secret, are not masked, because they occur in ordinary words.
#: Airflow's masker has the first of these limits, too.
SHORTEST = 5
SHORTEST_LINE = 8

#: Shorter values in a URL's query count as names and numbers, not as keys and signatures.
SHORTEST_SIGNATURE = 16

#: Limits on a job's secrets: the number of texts to mask, and the total length of the values in characters. Beyond
#: them, all text of the job is withheld. The job's variables together have at most 130,047 characters.
MOST_TEXTS = 1000
MOST_CHARACTERS = 260_000

#: Seconds of CPU that masking one piece of a log may take. With a thousand secrets, ordinary text takes a tenth of
#: that, and secrets that nearly match take a hundred times as long. Then the rest of the job's text is withheld.
MOST_SECONDS = 0.02

_URL = re.compile(r"://\S+")

#: In the path of a conda channel.
_CONDA_TOKEN = re.compile(r"/t/([^/\s]+)")

WITHHELD = "*** (this job has too many secrets to mask its text)"


class JobSecrets:
    """
    Masks the secrets of one job.

    :param values: values of the job's secret environment variables.
    :param runtime_env: the job's ``runtime_env``; logins and queries of URLs in it are secret, too.
    """

    def __init__(self, values: Iterable[str] = (), runtime_env: Any = None) -> None:
        self._texts: tuple[str, ...] | None = None
        values = [*values, *_credentials(runtime_env)]
        if sum(map(len, values)) > MOST_CHARACTERS or len(values) > MOST_TEXTS:
            return
        texts: set[str] = set()
        for value in values:
            texts.update(_forms(value))
            if len(texts) > MOST_TEXTS:
                return
        self._texts = tuple(sorted(texts, key=len, reverse=True))  # a longer one may contain a shorter one

    def public(self, text: str) -> str:
        """Return the job's text without its secrets."""
        limit = time.thread_time() + MOST_SECONDS
        for secret in self._texts or ():
            if secret in text:
                text = text.replace(secret, "***")
            if time.thread_time() > limit:
                self._texts = None
                break
        return WITHHELD if self._texts is None and text else text


class HiddenValues(dict[str, Any]):
    """
    Environment variables whose secret values are hidden when printed, for instance by ``airflow tasks render``.

    :param values: the variables.
    :param secret: names of the secret variables.
    """

    def __init__(self, values: Mapping[str, Any], secret: Iterable[str]) -> None:
        super().__init__(values)
        self._secret = frozenset(secret)

    def __repr__(self) -> str:
        return repr({name: "***" if name in self._secret else value for name, value in self.items()})

    __str__ = __repr__


def _forms(value: str) -> Iterable[str]:
    """Yield the forms in which a secret may occur: whole, line by line, and escaped as in JSON, Python and URLs."""
    lines = value.split("\n", MOST_TEXTS + 1)
    yield from (text for line in lines if len(text := line.strip()) >= SHORTEST_LINE)
    if len(value) >= SHORTEST:
        yield value
        yield json.dumps(value)[1:-1]
        yield json.dumps(value, ensure_ascii=False)[1:-1]
        yield repr(value)[1:-1]
        raw = value.encode(errors="replace")
        yield from (quote(raw), quote(raw, safe=""), quote_plus(raw))


def _credentials(value: Any, *, variables: bool = False) -> Iterable[str]:
    """
    Yield the secrets in the URLs of a JSON value.

    :param variables: whether the value is part of ``env_vars``; queries of URLs there are not secret.
    """
    if isinstance(value, str):
        yield from _in_urls(value, with_query=not variables)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _credentials(item, variables=variables or key == "env_vars")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _credentials(item, variables=variables)


def _in_urls(value: str, *, with_query: bool) -> Iterable[str]:
    texts = []
    for rest in value.split("://")[1:]:
        login = login_in(rest)
        texts += [login, login.partition(":")[2], *_CONDA_TOKEN.findall(rest)]
    for match in _URL.finditer(value) if with_query else ():
        query = match[0].partition("?")[2].partition("#")[0]
        values = (pair.partition("=")[2] for pair in query.split("&"))
        texts += [query, *(value for value in values if len(value) >= SHORTEST_SIGNATURE)]
    for text in texts:
        yield from {form for form in (text, unquote(text)) if len(form) >= SHORTEST}
