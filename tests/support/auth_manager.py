"""An auth manager with one private DAG. Airflow's simple auth manager has no rules for single DAGs."""

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
        """Decide like the simple auth manager, except for the private DAG."""
        if details is not None and details.id == PRIVATE_DAG and user.username != "olga":
            return False
        return super().is_authorized_dag(user=user, details=details, **more)
