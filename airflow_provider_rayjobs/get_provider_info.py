"""The provider's metadata for Airflow's providers manager."""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_rayjobs"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the format of ``airflow/provider_info.schema.json``."""
    from airflow_provider_rayjobs import __version__
    from airflow_provider_rayjobs.cluster.fields import connection_fields, field_behaviour

    return {
        "package-name": "airflow-provider-rayjobs",
        "name": "Ray Jobs",
        "description": "Runs jobs on `Ray <https://www.ray.io/>`__ clusters through the Ray Jobs REST API.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Ray Jobs",
                "external-doc-url": "https://docs.ray.io/en/latest/cluster/running-applications/job-submission/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Ray Jobs", "python-modules": [f"{_PACKAGE}.hooks"]}],
        "operators": [{"integration-name": "Ray Jobs", "python-modules": [f"{_PACKAGE}.operators"]}],
        "sensors": [{"integration-name": "Ray Jobs", "python-modules": [f"{_PACKAGE}.sensors"]}],
        "triggers": [{"integration-name": "Ray Jobs", "python-modules": [f"{_PACKAGE}.triggers"]}],
        "config": {
            "ray_jobs": {
                "description": "Options of the Ray Jobs provider.",
                "options": {
                    "allowed_modules": {
                        "description": (
                            "Comma-separated full names of the modules that connections of type ``ray_jobs`` may\n"
                            "import and run: the ``module`` of a host ``module://inner``, and the module of\n"
                            "``token_callable``. All other modules are refused.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "anyscale,company.ray_tokens",
                        "default": "",
                    },
                    "credential_folders": {
                        "description": (
                            "Comma-separated absolute paths of the folders from which connections of type\n"
                            "``ray_jobs`` may read files: ``token_file``, ``verify``, ``client_cert``,\n"
                            "``client_key``.\n"
                            "If empty, a connection may name any file on the machine; the content of a\n"
                            "``token_file`` is sent to the connection's host.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/run/secrets/ray,/etc/ssl/ray",
                        "default": "",
                    },
                    "task_view": {
                        "description": (
                            "Whether each task instance has the tab *Ray job*: its job's status, times, progress, why\n"
                            "it waits or failed, and the last lines of its log (Airflow 3.1 and newer).\n"
                            "Airflow shows the tab on all tasks, also on those without a Ray job.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                },
            }
        },
        "task-decorators": [{"name": "ray_job", "class-name": f"{_PACKAGE}.decorators.ray_job"}],
        "cli": [f"{_PACKAGE}.cli.get_ray_jobs_cli_commands"],
        "connection-types": [
            {
                "hook-class-name": f"{_PACKAGE}.hooks.RayJobHook",
                "hook-name": "Ray Jobs",
                "connection-type": "ray_jobs",
                "conn-fields": connection_fields(),
                "ui-field-behaviour": {name.replace("_", "-"): value for name, value in field_behaviour().items()},
            }
        ],
        "extra-links": [f"{_PACKAGE}.links.RayJobLink"],
    }
