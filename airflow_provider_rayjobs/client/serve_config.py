"""
Configs of Ray Serve, as ``serve deploy`` takes them: checks, and what a deployment changes on a cluster.

The field names are those of ``ServeDeploySchema`` and ``ServeApplicationSchema`` of ``serve/schema.py`` of Ray 2.60.
Nothing here sends requests.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.plain_values import check_mapping
from airflow_provider_rayjobs.client.runtime_env import check_runtime_env, is_uri, public_runtime_env

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.serve import ServeApplication, ServeDetails

#: The name that Serve gives to an application without one.
DEFAULT_NAME = "default"

#: What a plan does to an application that has the wanted config, but could not be deployed with it.
AGAIN = "deploys again"

#: What Ray 2.60 shows to browsers instead of the value of an environment variable.
REDACTED = "<redacted>"


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
    whole = {"applications": applications} if config is None else _parsed(config)
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


def _parsed(config: Any) -> Any:
    if not isinstance(config, str):
        return config
    import yaml

    try:
        return yaml.safe_load(config)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)  # the text of the error quotes lines, which may hold secrets
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ValueError(f"config is not valid YAML{where}") from None


def _read_application(where: str, application: Any) -> dict[str, Any]:
    check_mapping(where, application)
    name = application.get("name", DEFAULT_NAME)
    if not isinstance(name, str) or not name:
        raise TypeError(f"{where}: name must be a non-empty string")
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


def digest_of(application: Mapping[str, Any] | None) -> str:
    """Return what tells whether an application still has the same config; it depends on no secret."""

    def public(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: public_runtime_env(item) if key == "runtime_env" and isinstance(item, Mapping) else public(item)
                for key, item in value.items()
            }
        return [public(item) for item in value] if isinstance(value, list | tuple) else value

    return hashlib.sha256(json.dumps(public(application), sort_keys=True).encode()).hexdigest()[:16]


def is_same(wanted: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    """Whether an application that is there has the wanted config. Serve adds the ``logging_config`` of the whole."""
    if known is None:
        return False
    added = {"logging_config"} - set(wanted)
    return {key: value for key, value in known.items() if key not in added} == wanted


@dataclass(frozen=True)
class Plan:
    """
    What a deployment does to the applications of a cluster.

    :param body: the config to send: the wanted applications, and those that are kept.
    :param names: the wanted applications.
    :param before: the configs that are changed or removed, by name; None for an application that was not there.
    :param lost: wanted applications that were deployed with ``serve.run``, so that they can't be put back.
    :param parts: what is done, in words: each part with its applications.
    """

    body: dict[str, Any] = field(repr=False)
    names: tuple[str, ...]
    before: dict[str, dict[str, Any] | None] = field(repr=False)
    lost: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]

    @property
    def is_needed(self) -> bool:
        """Whether the cluster has anything else than what is wanted."""
        return bool(self.before or self.lost or self.parts[AGAIN])

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
    wanted = {one["name"]: one for one in config["applications"]}
    there = {name: one for name, one in details.applications.items() if one.status != "DELETING"}
    others = {name: one for name, one in there.items() if name not in wanted}
    untouched = [name for name, one in others.items() if one.imperative]
    declared = {name: one for name, one in others.items() if not one.imperative}
    same = [name for name, one in wanted.items() if name in there and is_same(one, there[name].config)]
    again = [name for name in same if there[name].status == "DEPLOY_FAILED"]
    changed = [name for name in wanted if name in there and name not in same]
    kept = {} if remove_others else {name: _kept(one) for name, one in declared.items()}
    removed = [name for name in declared if name not in kept]
    before: dict[str, dict[str, Any] | None] = {name: None for name in wanted if name not in there}
    before.update({name: there[name].config for name in changed if there[name].config is not None})
    before.update({name: one.config for name, one in declared.items() if name in removed})
    body = {**config, "applications": [*wanted.values(), *kept.values()]}
    if details.target_capacity is not None:
        body.setdefault("target_capacity", details.target_capacity)
    return Plan(
        body=body,
        names=tuple(wanted),
        before=before,
        lost=tuple(name for name in changed if there[name].config is None),
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


def plan_back(
    before: Mapping[str, Any], deployed: Mapping[str, str], details: ServeDetails
) -> tuple[dict[str, Any], list[str]]:
    """
    Decide what to send to put applications back, after others may have been deployed.

    :param before: as in :class:`Plan`.
    :param deployed: digest of the config with which each application was deployed meanwhile.
    :param details: what runs on the cluster now.
    :return: the config to send, and the applications that are put back. Those that somebody else has changed meanwhile
        are left alone.
    :raises ValueError: another application can't be kept.
    """
    there = {name: one for name, one in details.applications.items() if one.status != "DELETING"}
    back = [name for name in before if (digest_of(there[name].config) if name in there else None) == deployed.get(name)]
    kept = [_kept(one) for name, one in there.items() if name not in back and not one.imperative]
    body: dict[str, Any] = {"applications": [*(before[name] for name in back if before[name] is not None), *kept]}
    if details.target_capacity is not None:
        body["target_capacity"] = details.target_capacity
    return body, back
