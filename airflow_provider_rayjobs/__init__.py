"""Airflow provider that runs Ray Jobs over Ray's Jobs REST API, without ``ray`` on the worker."""

from __future__ import annotations

__version__ = "0.1.0"
