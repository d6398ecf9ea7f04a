"""
Configs of Ray Serve, as ``serve deploy`` takes them: checks, and what a deployment changes on a cluster.

The field names are those of ``ServeDeploySchema`` and ``ServeApplicationSchema`` of ``serve/schema.py`` of Ray 2.60.
Nothing here sends requests.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.plain_values import check_mapping
from airflow_provider_rayjobs.client.runtime_env import check_runtime_env, is_uri
from airflow_provider_rayjobs.serve import WRONG_NAME, is_wrong_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.serve import ServeApplication, ServeDetails

#: The name that Serve gives to an application without one.
DEFAULT_NAME = "default"

#: What a plan does to an application that has the wanted config, but could not be deployed with it.
AGAIN = "deploys again"

#: What Ray 2.60 shows to browsers instead of the value of an environment variable.
REDACTED = "<redacted>"

#: Fields whose values are the user's own: Serve stores them as they are.
FREE_FIELDS = frozenset({"args", "runtime_env", "user_config"})

#: Fields that every Serve from Ray 2.8 on stores. It drops others that its version does not know.
ALWAYS_STORED = frozenset(
    {
        *("name", "import_path", "route_prefix", "runtime_env", "args", "deployments"),
        *("num_replicas", "user_config", "autoscaling_config", "ray_actor_options"),
        *("num_cpus", "num_gpus", "memory", "resources", "accelerator_type"),
    }
)

#: A line of YAML with a name and a value, each perhaps quoted. It does not backtrack far.
_YAML_LINE = re.compile(r"""[\s{,-]*["']?(?P<name>[\w.-]+)["']?\s*:\s+(?P<value>\S.*?)[\s,}]*$""")


def read_config(config: Any = None, applications: Any = None) -> dict[str, Any]:
    """
    Return a checked config as a dict; what was given is not changed.

    :param config: a dict or YAML, as ``serve deploy`` takes it.
    :param applications: instead of it: its list ``applications`` alone.
    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    if (config is None) == (applications is None):
        raise ValueError("give either config or applications, not both" if config else "give config or applications")
    whole = {"applications": applications} if config is None else parsed(config)
    check_mapping("config", whole)
    if "applications" not in whole and "import_path" in whole:
        raise ValueError("config has no applications: write {'applications': [<this config>]} instead")
    listed = whole.get("applications")
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError("applications must be a list with at least one application")
    read = [_read_application(f"applications[{index}]", one) for index, one in enumerate(listed)]
    names = [one["name"] for one in read]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"applications has the name {twice[0]!r} twice; each application needs its own")
    result = {**whole, "applications": read}
    try:
        return dict(json.loads(json.dumps(result)))
    except (TypeError, ValueError, RecursionError):
        raise TypeError("config can't be written as JSON; use strings, numbers, lists and dicts") from None


def parsed(config: Any) -> Any:
    """
    Return what a YAML text says; other values are returned as they are.

    :raises ValueError: it is not valid YAML.
    """
    if not isinstance(config, str):
        return config
    import yaml

    try:
        return yaml.safe_load(config)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)  # the text of the error quotes lines, which may hold secrets
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ValueError(f"config is not valid YAML{where}") from None


def parsed_or_lines(config: Any) -> Any:
    """Return what a YAML text says; if it is not valid, what its lines seem to say, to find secrets in it."""
    try:
        return parsed(config)
    except ValueError:
        pairs = (_YAML_LINE.match(line) for line in str(config).splitlines())
        return [{pair["name"]: pair["value"].strip("\"'")} for pair in pairs if pair]


def _read_application(where: str, application: Any) -> dict[str, Any]:
    check_mapping(where, application)
    name = application.get("name", DEFAULT_NAME)
    if not isinstance(name, str) or not name:
        raise TypeError(f"{where}: name must be a non-empty string")
    if is_wrong_name(name):
        raise ValueError(f"{where}: name {WRONG_NAME}")
    path = application.get("import_path")
    if not isinstance(path, str) or not path:
        raise TypeError(f"{where}: import_path must be a string such as 'module:app'")
    read = {**application, "name": name}
    for place, owner in _owners(read):
        try:
            check_runtime_env(owner["runtime_env"])
        except (TypeError, ValueError) as e:
            raise type(e)(f"{where}{place}: {e}") from None
    return read


def _owners(application: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what has a ``runtime_env``, each with its place: an application, and the options of its deployments."""
    if application.get("runtime_env") is not None:
        yield "", application
    deployments = application.get("deployments")
    for index, deployment in enumerate(deployments if isinstance(deployments, list | tuple) else ()):
        options = deployment.get("ray_actor_options") if isinstance(deployment, Mapping) else None
        if isinstance(options, Mapping) and options.get("runtime_env") is not None:
            yield f".deployments[{index}].ray_actor_options", options


def with_runtime_envs(config: Mapping[str, Any], prepare: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return a copy of a checked config with what ``prepare`` returns for each ``runtime_env``."""
    copied: dict[str, Any] = copy.deepcopy(dict(config))
    for application in copied["applications"]:
        for _, owner in _owners(application):
            owner["runtime_env"] = prepare(owner["runtime_env"])
    return copied


def local_path(runtime_env: Mapping[str, Any]) -> str | None:
    """Return the first path of a checked ``runtime_env`` that names a folder or file of this machine, to be packed."""
    paths = [runtime_env.get("working_dir"), *(runtime_env.get("py_modules") or ())]
    return next((str(path) for path in paths if path is not None and not is_uri(str(path))), None)


def variables_of(config: Any) -> tuple[str, ...]:
    """Return the values of all environment variables in a config."""
    return tuple(str(value) for variables in _under("env_vars", config) for value in variables.values())


def _under(key: str, value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings that stand under a key, at any level."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name == key and isinstance(item, Mapping):
                yield item
            else:
                yield from _under(key, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _under(key, item)


def digest_of(config: Mapping[str, Any] | None) -> str:
    """
    Return what tells whether an application still has the same config, values of variables included.

    It is keyed with a random salt, which it begins with: two digests of one config differ.
    """
    salt = secrets.token_hex(16)
    return f"{salt}:{_keyed(salt, config)}"


def is_digest_of(digest: str, config: Mapping[str, Any] | None) -> bool:
    """Whether :func:`digest_of` returned this for the same config."""
    salt, colon, keyed = digest.partition(":")
    return bool(colon) and _keyed(salt, config) == keyed


def _keyed(salt: str, config: Mapping[str, Any] | None) -> str:
    text = json.dumps(config, sort_keys=True).encode()
    return hashlib.blake2b(text, key=salt.encode()[:64], digest_size=16).hexdigest()


def is_same(wanted: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    """
    Whether an application that is there certainly has the wanted config.

    Serve stores numbers that were sent as strings as numbers, and adds the ``logging_config`` of the whole.
    """
    return known is not None and _is_alike(wanted, _without_added(wanted, known), may_differ=False)


def may_be_stored(sent: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    """
    Whether a config that is there may be what Serve has stored of one that was sent.

    Serve also drops fields that its version does not know, writes log levels in its own way, and may hide the values of
    variables. A later version may add fields.
    """
    if known is None:
        return False
    return _is_alike(*({**one, "logging_config": None} for one in (sent, known)), may_differ=True)


def _without_added(wanted: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    added = {"logging_config"} - set(wanted)
    return {key: value for key, value in known.items() if key not in added}


def _is_alike(sent: Any, stored: Any, *, may_differ: bool, is_free: bool = False) -> bool:
    """
    Compare what was sent with what is stored.

    :param may_differ: whether fields may be missing or added that not every version of Serve has.
    :param is_free: whether the values are the user's own, which Serve does not convert.
    """
    if isinstance(sent, Mapping) and isinstance(stored, Mapping):
        differ = set(sent) ^ set(stored)
        if differ and (is_free or not may_differ or differ & ALWAYS_STORED):
            return False
        return all(
            _is_alike(sent[key], value, may_differ=may_differ, is_free=is_free or key in FREE_FIELDS)
            for key, value in stored.items()
            if key not in differ
        )
    if isinstance(sent, list) and isinstance(stored, list):
        pairs = zip(sent, stored, strict=False)
        return len(sent) == len(stored) and all(
            _is_alike(*pair, may_differ=may_differ, is_free=is_free) for pair in pairs
        )
    if isinstance(sent, bool) or isinstance(stored, bool):
        return sent is stored
    if sent == stored or (may_differ and stored == REDACTED):
        return True
    return not is_free and _number(sent) is not None and _number(sent) == _number(stored)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Rollback:
    """
    What a deployment has changed on a cluster: what was there before, and what was sent.

    :param before: the configs that are changed or removed, by name; None for an application that was not there.
    :param lost: other applications that are changed or removed, each with the reason why it can't be put back.
    :param sent: the configs that are sent for the wanted applications, by name. A deferral does not store them.
    :param digests: a digest of each of them, as Serve has stored it; empty if Serve has another config.
    :param target_capacity: the value before.
    :param sent_capacity: the value that is sent.
    """

    before: dict[str, dict[str, Any] | None] = field(default_factory=dict, repr=False)
    lost: dict[str, str] = field(default_factory=dict)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    digests: dict[str, str] = field(default_factory=dict)
    target_capacity: float | None = None
    sent_capacity: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a deferral stores; :meth:`from_json` reads it."""
        return {
            "before": self.before,
            "lost": self.lost,
            "digests": self.digests,
            "target_capacity": self.target_capacity,
            "sent_capacity": self.sent_capacity,
        }

    @classmethod
    def from_json(cls, data: Any) -> Rollback:
        """Read what :meth:`to_json` returned."""
        return cls(**data)

    def after(self, first: Rollback) -> Rollback:
        """Return this, as the second attempt of a deployment: what the first one found was there before both."""
        return replace(
            self,
            before={name: one for name, one in self.before.items() if name not in first.lost} | first.before,
            lost={name: why for name, why in self.lost.items() if name not in first.before} | first.lost,
            target_capacity=first.target_capacity,
        )

    def confirmed(self, details: ServeDetails) -> Rollback:
        """Return this with the digests of what Serve has stored, if that is what was sent."""
        there = _there(details)
        return replace(
            self,
            digests={
                name: digest_of(there[name].config) if self.is_ours(name, there.get(name)) else "" for name in self.sent
            },
        )

    def is_there(self, details: ServeDetails) -> bool:
        """Whether the cluster has what was sent."""
        there = _there(details)
        return all(self.is_ours(name, there.get(name)) for name in {**self.sent, **self.before})

    def is_ours(self, name: str, application: ServeApplication | None) -> bool:
        """Whether an application still is as this deployment has left it."""
        if application is None:
            return name not in self.sent and name not in self.digests
        if name in self.digests:
            return is_digest_of(self.digests[name], application.config)
        return name in self.sent and may_be_stored(self.sent[name], application.config)

    def is_back(self, name: str, application: ServeApplication | None) -> bool:
        """Whether an application is as it was before."""
        before = self.before[name]
        return application is None if before is None else application is not None and application.config == before


def _there(details: ServeDetails) -> dict[str, ServeApplication]:
    return {name: one for name, one in details.applications.items() if one.status != "DELETING"}


@dataclass(frozen=True)
class Plan:
    """
    What a deployment does to the applications of a cluster.

    :param body: the config to send: the wanted applications, and those that are kept.
    :param names: the wanted applications.
    :param rollback: what is changed.
    :param parts: what is done, in words: each part with its applications.
    """

    body: dict[str, Any] = field(repr=False)
    names: tuple[str, ...]
    rollback: Rollback
    parts: dict[str, tuple[str, ...]]

    @property
    def is_needed(self) -> bool:
        """Whether the cluster has anything else than what is wanted."""
        return bool(self.rollback.before or self.rollback.lost or self.parts[AGAIN])

    def __str__(self) -> str:
        return "; ".join(f"{what} {', '.join(names)}" for what, names in self.parts.items() if names)


def plan(config: Mapping[str, Any], details: ServeDetails, *, remove_others: bool) -> Plan:
    """
    Decide what to send, so that other applications stay unless they are to be removed.

    :param config: a config that :func:`read_config` returned.
    :param details: what runs on the cluster.
    :param remove_others: whether other applications are removed, as ``serve deploy`` does it.
    :raises ValueError: another application can't be kept.
    """
    there = _there(details)
    names = [one["name"] for one in config["applications"]]
    others = {name: one for name, one in there.items() if name not in names}
    untouched = [name for name, one in others.items() if one.imperative]
    declared = {name: one for name, one in others.items() if not one.imperative}
    kept = {} if remove_others else {name: _kept(one) for name, one in declared.items()}
    config = _with_own_logging(config, kept.values())
    wanted = {one["name"]: one for one in config["applications"]}
    same = [name for name, one in wanted.items() if name in there and is_same(one, there[name].config)]
    again = [name for name in same if there[name].status == "DEPLOY_FAILED"]
    changed = [name for name in wanted if name in there and name not in same]
    removed = [name for name in declared if name not in kept]
    before: dict[str, dict[str, Any] | None] = {name: None for name in wanted if name not in there}
    lost = {}
    for name in [*changed, *removed]:
        if why := _why_lost(there[name], wanted.get(name)):
            lost[name] = why
        else:
            before[name] = there[name].config
    body = {**config, "applications": [*wanted.values(), *kept.values()]}
    if details.target_capacity is not None:
        body.setdefault("target_capacity", details.target_capacity)
    return Plan(
        body=body,
        names=tuple(wanted),
        rollback=Rollback(
            before=before,
            lost=lost,
            sent=wanted,
            target_capacity=details.target_capacity,
            sent_capacity=body.get("target_capacity"),
        ),
        parts={
            "deploys": tuple(name for name in wanted if name not in there),
            "changes": tuple(changed),
            AGAIN: tuple(again),
            "leaves as deployed": tuple(name for name in same if name not in again),
            "keeps": tuple(kept),
            "REMOVES": tuple(removed),
            "does not touch (deployed with serve.run)": tuple(untouched),
        },
    )


def _with_own_logging(config: Mapping[str, Any], kept: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Return a config whose applications have the ``logging_config`` of the whole, unless they have their own.

    Serve writes that of the whole into all applications without one, also into those that are to be kept unchanged.
    """
    result = dict(config)
    if (logging := config.get("logging_config")) is None:
        return result
    result["applications"] = [
        one if one.get("logging_config") is not None else {**one, "logging_config": logging}
        for one in config["applications"]
    ]
    if any(one.get("logging_config") is None for one in kept):
        del result["logging_config"]
    return result


def _why_lost(application: ServeApplication, wanted: Mapping[str, Any] | None) -> str:
    """Return why an application that is changed or removed can't be put back; empty if it can."""
    if application.imperative:
        return "it was deployed with serve.run"
    if application.config is None:
        return "Ray does not tell its config"
    if REDACTED in variables_of(application.config):
        return "Ray hides its environment variables"
    if wanted is not None and not application.is_running and may_be_stored(wanted, application.config):
        return "its config may be that of an earlier try"
    return ""


def _kept(application: ServeApplication) -> dict[str, Any]:
    """Return the config with which another application stays as it is."""
    if application.config is None:
        raise ValueError(
            f"application {application.name!r} is on the cluster, and Ray does not tell its config, so it can't be "
            "kept; deploy it with a config, too, or give remove_others=True"
        )
    if REDACTED in variables_of(application.config):
        raise ValueError(
            f"application {application.name!r} is on the cluster, and Ray hides its environment variables, so it can't "
            "be kept; remove a User-Agent of a browser from the connection's headers, or give remove_others=True"
        )
    return application.config


def plan_back(rollback: Rollback, details: ServeDetails) -> tuple[dict[str, Any] | None, list[str]]:
    """
    Decide what to send to put applications back, after others may have been deployed.

    :param rollback: what the deployment has changed.
    :param details: what runs on the cluster now.
    :return: the config to send, None if nothing is to be sent; and the applications that are as before then. Those that
        somebody else has changed meanwhile are left alone.
    :raises ValueError: another application can't be kept.
    """
    there = _there(details)
    before = rollback.before
    is_back = [name for name in before if rollback.is_back(name, there.get(name))]
    ours = [name for name in before if name not in is_back and rollback.is_ours(name, there.get(name))]
    back = [name for name in before if name in ours or name in is_back]
    if not ours:
        return None, back
    kept = [_kept(one) for name, one in there.items() if name not in ours and not one.imperative]
    body: dict[str, Any] = {"applications": [*(before[name] for name in ours if before[name] is not None), *kept]}
    is_sent = details.target_capacity == rollback.sent_capacity
    capacity = rollback.target_capacity if is_sent else details.target_capacity
    if capacity is not None:
        body["target_capacity"] = capacity
    return body, back
