"""An auth manager with rules for single DAGs and for logs, which Airflow's simple auth manager does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

from tests.support.airflow_app import PRIVATE_DAG

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser


class PrivateDagAuthManager(SimpleAuthManager):
    """Lets only olga read the private DAG, and nora no task logs."""

    def is_authorized_dag(self, *, user: SimpleAuthManagerUser, details: DagDetails | None = None, **more: Any) -> bool:
        """Decide like the simple auth manager, except for the private DAG and for logs."""
        if details is not None and details.id == PRIVATE_DAG and user.username != "olga":
            return False
        if user.username == "nora" and more.get("access_entity") is DagAccessEntity.TASK_LOGS:
            return False
        return super().is_authorized_dag(user=user, details=details, **more)
