"""What the trigger that waits for a cluster sends to its operator, as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.text.safe_text import safe_value

EVENT_VERSION = 1

#: Each outcome, and the error for it.
OUTCOMES: dict[str, type[RayKubernetesError] | None] = {
    "ready": None,
    "refused": RayKubernetesRefusedError,
    "ended": RayClusterStartError,
    "unreachable": RayKubernetesError,
}


@dataclass(frozen=True)
class StartEvent:
    """
    How the start of a cluster ended.

    :param outcome: a key of :data:`OUTCOMES`.
    :param number: number of the submission within its try.
    :param detail: the error's text.
    :param waited: what the cluster waited for meanwhile.
    """

    outcome: str
    number: int = 1
    detail: str = ""
    waited: tuple[str, ...] = ()

    @classmethod
    def of_error(cls, error: RayKubernetesError, **rest: Any) -> StartEvent:
        """Return the event of an error."""
        names = [name for name, kind in OUTCOMES.items() if kind is not None and isinstance(error, kind)]
        return cls(names[0], detail=str(error), **rest)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object that every database can store."""
        values = {**asdict(self), "waited": list(self.waited)}
        event: dict[str, Any] = safe_value({"version": EVENT_VERSION, **values})
        return event

    @classmethod
    def from_json(cls, data: Any) -> StartEvent:
        """
        Check and read an event.

        :raises ValueError: if it is not a valid event of this version.
        """
        if not isinstance(data, dict) or data.get("version") != EVENT_VERSION or data.get("outcome") not in OUTCOMES:
            raise ValueError(
                f"the trigger's event is not of version {EVENT_VERSION}: {str(data)[:200]!r}; the triggerer and the "
                "worker must run the same version of airflow-provider-rayjobs"
            )
        number = data.get("number")
        return cls(
            outcome=data["outcome"],
            number=number if isinstance(number, int) else 1,
            detail=str(data.get("detail") or ""),
            waited=tuple(map(str, data.get("waited") or ())),
        )

    def raise_if_failed(self) -> None:
        """Raise the error for the outcome, unless the cluster is ready."""
        if (kind := OUTCOMES[self.outcome]) is not None:
            raise kind(self.detail)
