"""
Types for Ray Serve that hooks and operators return.

They follow ``ServeInstanceDetails`` of ``serve/schema.py`` of Ray 2.60. Every value that a cluster sends is checked in
:meth:`ServeDetails.from_json`, and nowhere else. Example::

    from airflow_provider_rayjobs.hooks import RayJobHook

    details = RayJobHook().get_serve_details()
    broken = [name for name, application in details.applications.items() if application.status == "DEPLOY_FAILED"]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayjobs.text.safe_text import for_terminal, safe_text

__all__ = ["ServeApplication", "ServeDeployment", "ServeDetails"]

#: Maximum length of a name or a status, in characters.
LONGEST_NAME = 200

#: Completes a sentence about a name that is refused.
WRONG_NAME = f"has more than {LONGEST_NAME} characters, or control characters"

#: Maximum length of a message, in characters. Of a longer one the end is kept, where a traceback names its cause.
LONGEST_MESSAGE = 10_000


@dataclass(frozen=True)
class ServeDeployment:
    """
    A deployment of an application, with its replicas.

    Example::

        deployment = ServeDeployment("Model", "UPDATING", "", running=1, target=2)
        assert deployment.running < deployment.target

    :param name: its name.
    :param status: Serve's status, such as ``UPDATING``, ``HEALTHY``, ``UNHEALTHY`` or ``DEPLOY_FAILED``.
    :param message: Serve's message about it; empty if there is none.
    :param running: how many of its replicas are running.
    :param target: how many there are to be; None if Serve does not tell.
    """

    name: str
    status: str
    message: str = ""
    running: int = 0
    target: int | None = None


@dataclass(frozen=True)
class ServeApplication:
    """
    An application of Ray Serve.

    Example::

        application = ServeApplication("text_app", "RUNNING")
        assert application.is_running

    :param name: its name.
    :param status: ``NOT_STARTED``, ``DEPLOYING``, ``RUNNING``, ``DEPLOY_FAILED``, ``UNHEALTHY`` or ``DELETING``; a
        later Ray may add others.
    :param message: Serve's message about it; empty if there is none.
    :param route_prefix: path under which Serve's proxy serves it; None if there is none, or none yet.
    :param deployed_at: when it was last deployed, in Unix seconds.
    :param config: the config with which it was deployed, as Serve was sent it; None if it was deployed from Python code
        with ``serve.run``.
    :param imperative: whether Serve says that it was deployed with ``serve.run``. Then no config changes or deletes it,
        unless it names it.
    :param deployments: its deployments, as far as they are there.
    """

    name: str
    status: str
    message: str = ""
    route_prefix: str | None = None
    deployed_at: float = 0.0
    config: dict[str, Any] | None = field(default=None, repr=False)
    imperative: bool = False
    deployments: tuple[ServeDeployment, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether all of its deployments are healthy."""
        return self.status == "RUNNING"


@dataclass(frozen=True)
class ServeDetails:
    """
    What runs in a cluster's Ray Serve.

    Example::

        details = ServeDetails({"text_app": ServeApplication("text_app", "RUNNING")})
        assert details.applications["text_app"].is_running

    :param applications: the applications by name; empty if Serve has not been started.
    :param target_capacity: percentage of the replicas that Serve starts; None for all.
    """

    applications: dict[str, ServeApplication] = field(default_factory=dict)
    target_capacity: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ServeDetails:
        """
        Check and read what Serve answers.

        :param data: a ``ServeInstanceDetails``.
        :raises ValueError: if a value that the provider needs has another type.
        """
        found = data.get("applications")
        if not isinstance(found, Mapping):
            raise ValueError("an answer without applications of Ray Serve")
        capacity = data.get("target_capacity")
        if capacity is not None and not _is_number(capacity):
            raise ValueError("an answer whose target_capacity is not a number")
        if any(is_wrong_name(str(name)) for name in found):
            raise ValueError(f"an application whose name {WRONG_NAME}")
        applications = [_application(str(name), one) for name, one in found.items()]
        return cls({one.name: one for one in applications}, capacity)


def is_wrong_name(name: str) -> bool:
    """Whether a name can't be that of an application: another one would have to be shown and stored in its place."""
    return len(name) > LONGEST_NAME or for_terminal(name) != name


def _application(name: str, data: Any) -> ServeApplication:
    if not isinstance(data, Mapping) or not isinstance(data.get("status"), str):
        raise ValueError(f"an application of Ray Serve without a status ({name!r})")
    config, route = data.get("deployed_app_config"), data.get("route_prefix")
    at: Any = data.get("last_deployed_time_s")
    deployments = data.get("deployments")
    return ServeApplication(
        name=name,
        status=_short(data["status"]),
        message=_message(data.get("message")),
        route_prefix=_short(route) if isinstance(route, str) else None,
        deployed_at=float(at) if _is_number(at) else 0.0,
        config=dict(config) if isinstance(config, Mapping) else None,
        imperative=data.get("source") == "imperative",
        deployments=tuple(
            _deployment(str(key), value)
            for key, value in (deployments.items() if isinstance(deployments, Mapping) else ())
            if isinstance(value, Mapping)
        ),
    )


def _deployment(name: str, data: Mapping[str, Any]) -> ServeDeployment:
    replicas, target = data.get("replicas"), data.get("target_num_replicas")
    states = [one.get("state") for one in replicas if isinstance(one, Mapping)] if isinstance(replicas, list) else []
    return ServeDeployment(
        name=_short(name),
        status=_short(data.get("status")),
        message=_message(data.get("message")),
        running=states.count("RUNNING"),
        target=target if isinstance(target, int) and not isinstance(target, bool) else None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    return safe_text(value[:LONGEST_NAME]) if isinstance(value, str) else ""


def _message(value: Any) -> str:
    return safe_text(value[-LONGEST_MESSAGE:]) if isinstance(value, str) else ""
