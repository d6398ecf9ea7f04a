"""Airflow provider that runs Ray jobs through Ray's Jobs REST API, without the ``ray`` package on the worker."""

from __future__ import annotations

__version__ = "0.1.0"
