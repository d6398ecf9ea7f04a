"""
Waits until applications of Ray Serve have a status, without I/O: the same on a worker and in a triggerer.

A :class:`ServeWaiter` is shown what Serve says, or the error of the request, and tells when the wait has ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.serve_config import is_digest_of
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayRequestRefusedError
from airflow_provider_rayjobs.following.events import Outcome
from airflow_provider_rayjobs.text.safe_text import for_terminal, safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_rayjobs.exceptions import RayJobsError
    from airflow_provider_rayjobs.serve import ServeApplication, ServeDeployment, ServeDetails

EVENT_VERSION = 1

#: Seconds between the first two looks; the pause grows to the given interval.
FIRST_PAUSE = 0.5

#: Maximum length of what is said about applications, in characters.
LONGEST_REASON = 4000

#: Most deployments of an application that are described.
MOST_DEPLOYMENTS = 10


@dataclass(frozen=True)
class ServeWatch:
    """
    What to wait for.

    :param applications: names of the applications, all of which must have one of the statuses.
    :param deadline: when the wait ends, in Unix seconds.
    :param poll_interval: maximum time between two looks, in seconds.
    :param target_statuses: the statuses to wait for.
    :param deployed: digests of the configs with which they were deployed, by name; an application that is gone, or has
        another config, ends the wait. Without them, an application that is not there may come.
    """

    applications: tuple[str, ...]
    deadline: float
    poll_interval: float = 5.0
    target_statuses: tuple[str, ...] = ("RUNNING",)
    deployed: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON."""
        return {
            "applications": list(self.applications),
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "target_statuses": list(self.target_statuses),
            "deployed": dict(self.deployed),
        }


@dataclass(frozen=True)
class ServeEvent:
    """
    How a wait ended.

    :param address: the cluster's address, for messages.
    :param outcome: SUCCEEDED: all have a target status. FAILED: one can't be deployed. STOPPED: the cluster refuses to
        be asked. LOST: one was removed or changed by somebody else. TIMEOUT, UNREACHABLE.
    :param detail: what happened, in words.
    :param statuses: the last known status of each application.
    """

    address: str
    outcome: Outcome
    detail: str = ""
    statuses: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object that every database can store."""
        event: dict[str, Any] = safe_value(
            {
                "version": EVENT_VERSION,
                "address": self.address,
                "outcome": str(self.outcome),
                "detail": self.detail,
                "statuses": dict(self.statuses),
            }
        )
        return event

    @classmethod
    def from_json(cls, data: Any) -> ServeEvent:
        """
        Check and read an event.

        :param data: what the trigger sent.
        :raises ValueError: if it is not a valid event of this version.
        """
        try:
            if data["version"] != EVENT_VERSION:
                raise ValueError(f"its version is {data['version']!r}")
            statuses = {str(name): str(status) for name, status in data["statuses"].items()}
            return cls(str(data["address"]), Outcome(data["outcome"]), str(data["detail"]), statuses)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise ValueError(
                f"the trigger sent an event that this version can't read ({e}): {str(data)[:200]!r}; the triggerer and "
                "the worker must run the same version of airflow-provider-rayjobs"
            ) from None


class ServeWaiter:
    """
    Decides when a wait for applications has ended, and says in the log what they do.

    :param watch: what to wait for.
    :param address: the cluster's address.
    :param patience: seconds without contact after which the wait ends.
    :param log: logger of the task.
    :param public_for: returns what removes the secrets of the applications' configs from a text.
    """

    def __init__(
        self,
        watch: ServeWatch,
        address: str,
        patience: float,
        log: Any,
        public_for: Callable[[Any], Callable[[str], str]],
    ) -> None:
        self._watch = watch
        self._address = address
        self._log = log
        self._public_for = public_for
        self._public = public_for(None)
        self._configs: list[Any] | None = None
        self._said: dict[str, str] = {}
        self._statuses: dict[str, str] = {}
        self._pause = FIRST_PAUSE
        #: Since when all answers are errors; None after lost contact, which tells nothing of the applications.
        self._answered_since: float | None = None
        self._began = time.monotonic()
        self.contact = Contact(patience, log, lambda text: self._public(text))  # noqa: PLW0108 - it changes

    def pause(self) -> float:
        """Return the seconds until the next look."""
        pause = self._pause = min(self._pause * 1.5, self._watch.poll_interval)
        return max(min(pause, self._watch.deadline - time.time(), self.contact.left), 0.0)

    def failed(self, error: RayJobsError) -> ServeEvent | None:
        """Handle a look that failed; return how the wait has ended, or None."""
        if isinstance(error, RayRequestRefusedError):
            return self._event(Outcome.STOPPED, without_logins(self._public(str(error))))
        lost = isinstance(error, RayClusterUnreachableError)
        if not lost and not self.contact.lost:
            self._answered_since = time.monotonic()
        elif lost:
            self._answered_since = None
        if detail := self.contact.failed(error):
            if self._answered_since is None:
                return self._event(Outcome.UNREACHABLE, detail)
            said = without_logins(self._public(str(error)))
            seconds = time.monotonic() - self._answered_since
            return self._event(Outcome.FAILED, f"the cluster answered with errors for {seconds:.0f} s: {said}")
        return self._too_late()

    def saw(self, details: ServeDetails) -> ServeEvent | None:
        """Handle what Serve says; return how the wait has ended, or None."""
        self.contact.back()
        watch = self._watch
        found = {name: details.applications.get(name) for name in watch.applications}
        if (configs := [one.config for one in found.values() if one]) != self._configs:
            self._configs, self._public = configs, self._public_for(configs)
        self._statuses = {name: one.status if one else "not there" for name, one in found.items()}
        for name, one in found.items():
            self._say(name, one)
        for name, digest in watch.deployed.items():
            one = found.get(name)
            gone = one is None or one.status == "DELETING"
            if one is None or gone or not is_digest_of(digest, one.config):
                how = "was removed" if gone else "has another config now"
                return self._event(
                    Outcome.LOST,
                    f"application {name!r} {how}: somebody else has deployed, or the head has restarted. Let only one "
                    "task at a time deploy to a cluster, for example with a pool of one slot",
                )
        broken = [one for one in found.values() if one and self._is_broken(one)]
        if broken:
            return self._event(Outcome.FAILED, bounded(map(self._reason, broken)))
        if all(one is not None and one.status in watch.target_statuses for one in found.values()):
            return self._event(Outcome.SUCCEEDED)
        return self._too_late()

    def _is_broken(self, application: ServeApplication) -> bool:
        return application.status == "DEPLOY_FAILED" and application.status not in self._watch.target_statuses

    def _too_late(self) -> ServeEvent | None:
        if time.time() < self._watch.deadline:
            return None
        waiting = [said for name, said in self._said.items() if self._statuses[name] not in self._watch.target_statuses]
        waited = time.monotonic() - self._began
        return self._event(Outcome.TIMEOUT, f"gave up after {waited:.0f} s: {bounded(waiting) or 'no answer'}")

    def _event(self, outcome: Outcome, detail: str = "") -> ServeEvent:
        return ServeEvent(self._address, outcome, detail, dict(self._statuses))

    def _say(self, name: str, application: ServeApplication | None) -> None:
        """Log what an application does, when that changes."""
        said = self._reason(application) if application else f"application {name!r} is not there"
        if self._said.get(name) != said:
            self._said[name] = said
            self._log.info("%s%s", said[:1].upper(), said[1:])

    def _reason(self, application: ServeApplication) -> str:
        return reason_of(application, self._public)


def reason_of(application: ServeApplication, public: Callable[[str], str]) -> str:
    """
    Describe an application and those of its deployments that are not healthy, in at most :data:`LONGEST_REASON`.

    :param public: removes secrets from a text.
    """
    ill = sorted((one for one in application.deployments if one.status != "HEALTHY"), key=_is_changing)
    shown = ill[:MOST_DEPLOYMENTS]
    longest = LONGEST_REASON // 2 // (1 + len(shown))
    parts = [f"application {application.name!r} is {application.status}"]
    parts += [_cut(application.message, longest, public)] if application.message.strip() else []
    for one in shown:
        replicas = "" if one.target is None else f", {one.running} of {one.target} replicas"
        message = f": {_cut(one.message, longest, public)}" if one.message.strip() else ""
        parts.append(f"deployment {for_terminal(one.name)!r} is {for_terminal(one.status)}{replicas}{message}")
    if len(ill) > len(shown):
        parts.append(f"and {len(ill) - len(shown):,} more")
    return bounded(parts)


def bounded(parts: Iterable[str]) -> str:
    """Return what is said, in at most :data:`LONGEST_REASON` characters."""
    text = "; ".join(parts)
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 6]} [...]"


def _is_changing(deployment: ServeDeployment) -> bool:
    """Whether a deployment may yet become healthy; those that failed are named first."""
    return deployment.status not in ("DEPLOY_FAILED", "UNHEALTHY")


def _cut(message: str, longest: int, public: Callable[[str], str]) -> str:
    """Return a message of Serve without secrets, and the end of a long one, where a traceback names its cause."""
    text = for_terminal(without_logins(public(message))).strip().rstrip(".")
    return text if len(text) <= longest else f"[...] {text[-longest:]}"
