"""
The secrets of one job, taken out of that job's own text: its log, Ray's message about it, its function's error.

They are not given to Airflow's masker: that one forgets nothing, masks in the text of all tasks of a process, and gets
slower with each secret. Here a job can hide words in its own text only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

#: Shorter texts are not masked by themselves, nor are shorter lines of a secret of several lines: they are part of
#: ordinary words. Airflow's masker keeps to the first of these, too.
SHORTEST = 5
SHORTEST_LINE = 8

#: In a URL's query, shorter values are names and numbers rather than keys and signatures.
SHORTEST_SIGNATURE = 16

#: A job with more secret texts than this, or with longer ones in all (in characters), shows no text.
MOST_TEXTS = 1000
MOST_CHARACTERS = 1_000_000

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")

WITHHELD = "*** (this job has too many secrets to mask its text)"


class JobSecrets:
    """
    Masks the secrets of one job.

    :param values: values of its secret environment variables.
    :param runtime_env: its ``runtime_env``; what URLs in it hold as login or query is secret, too.
    """

    def __init__(self, values: Iterable[str] = (), runtime_env: Any = None) -> None:
        texts: set[str] = set()
        size = 0
        for text in (*_forms(values), *_credentials(runtime_env)):
            if text not in texts:
                texts.add(text)
                size += len(text)
            if len(texts) > MOST_TEXTS or size > MOST_CHARACTERS:
                self._texts: tuple[str, ...] | None = None
                return
        self._texts = tuple(sorted(texts, key=len, reverse=True))  # a longer one may hold a shorter one

    def public(self, text: str) -> str:
        """Return the job's text without its secrets."""
        if self._texts is None:
            return WITHHELD if text else text
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, "***")
        return text


class HiddenValues(dict[str, Any]):
    """
    Environment variables that hide secret values from whoever prints them, ``airflow tasks render`` for one.

    :param values: the variables.
    :param secret: names of those that are secret.
    """

    def __init__(self, values: Mapping[str, Any], secret: Iterable[str]) -> None:
        super().__init__(values)
        self._secret = frozenset(secret)

    def __repr__(self) -> str:
        return repr({name: "***" if name in self._secret else value for name, value in self.items()})

    __str__ = __repr__


def _forms(values: Iterable[str]) -> Iterable[str]:
    """Yield the texts as which secrets show up: whole, line by line, and escaped as in JSON and in Python."""
    for value in values:
        lines = [line.strip() for line in value.splitlines()]
        yield from (line for line in lines if len(line) >= SHORTEST_LINE)
        if len(value) >= SHORTEST:
            yield value
            yield json.dumps(value)[1:-1]
            yield json.dumps(value, ensure_ascii=False)[1:-1]
            yield repr(value)[1:-1]


def _credentials(value: Any, *, variables: bool = False) -> Iterable[str]:
    """
    Yield the secrets in the URLs of a JSON value.

    :param variables: whether the value is of ``env_vars``: what their URLs ask for is no secret, but ordinary words.
    """
    if isinstance(value, str):
        for match in _URL.finditer(value):
            yield from _of_url(match[0], with_query=not variables)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _credentials(item, variables=variables or key == "env_vars")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _credentials(item, variables=variables)


def _of_url(url: str, *, with_query: bool) -> Iterable[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    login = parts.netloc.rpartition("@")[0]
    texts = [login, login.partition(":")[2]]
    if with_query:
        values = (pair.partition("=")[2] for pair in parts.query.split("&"))
        texts += [parts.query, *(value for value in values if len(value) >= SHORTEST_SIGNATURE)]
    for text in texts:
        yield from (form for form in (text, unquote(text)) if len(form) >= SHORTEST)
