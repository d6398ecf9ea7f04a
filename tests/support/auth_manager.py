"""An auth manager by which one DAG is private: Airflow's simple one knows no rules for a single DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

from tests.support.airflow_app import PRIVATE_DAG

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser


class PrivateDagAuthManager(SimpleAuthManager):
    """Lets only olga read the private DAG."""

    def is_authorized_dag(self, *, user: SimpleAuthManagerUser, details: DagDetails | None = None, **more: Any) -> bool:
        """Decide as the simple one does, but for the private DAG."""
        if details is not None and details.id == PRIVATE_DAG and user.username != "olga":
            return False
        return super().is_authorized_dag(user=user, details=details, **more)
