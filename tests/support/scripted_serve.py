"""A scripted head with Ray Serve, whose applications become what their import paths say."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from tests.support import answers
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from airflow_provider_rayjobs.testing.http_server import Received
    from tests.support.answers import Answer

ROUTE = "/api/serve/applications/"


class ScriptedServe(ScriptedRay):
    """Serves the route of Ray Serve, too. An application ``module:app`` gets the statuses of :attr:`course`."""

    def __init__(self) -> None:
        super().__init__()
        #: Statuses of an application after each PUT, one for each GET, by its import path.
        self.course: dict[str, list[str]] = {}
        self.applications: dict[str, dict[str, Any]] = {}
        self.target_capacity: float | None = None
        #: The configs that were sent.
        self.deployed: list[dict[str, Any]] = []
        #: The next statuses of each application, one for each GET.
        self.ahead: dict[str, deque[str]] = {}

    def add(self, name: str, status: str = "RUNNING", *, source: str = "declarative", **config: Any) -> dict[str, Any]:
        """Add an application as if it had been deployed before."""
        given = {"name": name, "import_path": "m:ok", **config}
        self.applications[name] = {
            "name": name,
            "status": status,
            "message": "",
            "route_prefix": f"/{name}",
            "last_deployed_time_s": 1.0,
            "deployed_app_config": given if source == "declarative" else None,
            "source": source,
            "deployments": {},
        }
        return given

    def default_answer(self, received: Received) -> Answer:
        if received.path != ROUTE:
            return super().default_answer(received)
        if received.method == "PUT":
            self._deploy(received.json)
            return answers.Answer(200, b"", "application/octet-stream")
        for name, ahead in self.ahead.items():
            if ahead and name in self.applications:
                self._become(self.applications[name], ahead.popleft())
        return answers.as_json({"applications": self.applications, "target_capacity": self.target_capacity})

    def _deploy(self, config: dict[str, Any]) -> None:
        self.deployed.append(config)
        wanted = {one.get("name", "default"): one for one in config["applications"]}
        for name, one in list(self.applications.items()):
            if name not in wanted and one["source"] == "declarative":
                del self.applications[name]
        for name, one in wanted.items():
            self.add(name, "DEPLOYING", **{key: value for key, value in one.items() if key != "name"})
            self.ahead[name] = deque(self.course.get(one["import_path"], ["DEPLOYING", "DEPLOYING", "RUNNING"]))

    @staticmethod
    def _become(application: dict[str, Any], status: str) -> None:
        application["status"] = status
        variables = (application["deployed_app_config"].get("runtime_env") or {}).get("env_vars") or {}
        said = f"RuntimeError: the model is not there {json.dumps(variables)}\x1b[0m"
        broken = status == "DEPLOY_FAILED"
        application["message"] = "Failed to update the deployments ['Model']." if broken else ""
        application["deployments"] = {
            "Model": {
                "name": "Model",
                "status": "DEPLOY_FAILED" if broken else "UPDATING" if status == "DEPLOYING" else "HEALTHY",
                "message": said if broken else "",
                "target_num_replicas": 2,
                "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}],
            }
        }
