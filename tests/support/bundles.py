"""A DAG bundle with versions, for an Airflow of tests (3.0 or later)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle


class Versions(BaseDagBundle):
    """
    A bundle whose versions are folders beside each other, as Airflow's Git bundle has them on a worker.

    :param root: the folder with the versions.
    """

    supports_versioning = True

    def __init__(self, *, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._root = Path(root)

    @property
    def path(self) -> Path:
        return self._root / (self.version or self.get_current_version())

    def get_current_version(self) -> str:
        return max(path.name for path in self._root.iterdir())

    def refresh(self) -> None:
        pass
