"""Answers of Ray's State API, as a head gives them, for tests that run flows without a server."""

from __future__ import annotations

import json
from typing import Any


def listed(*rows: dict[str, Any], number: int | None = None) -> bytes:
    """Return a list of the State API."""
    found = {"total": len(rows), "num_filtered": len(rows) if number is None else number, "result": list(rows)}
    return json.dumps({"result": True, "msg": "", "data": {"result": found}}).encode()


def counted(functions: dict[str, dict[str, int]]) -> bytes:
    """Return a summary of tasks: for each function, the number of tasks in each state."""
    summary = {name: {"func_or_class_name": name, "state_counts": states} for name, states in functions.items()}
    result = {"total": 1, "result": {"node_id_to_summary": {"cluster": {"summary": summary}}}}
    return json.dumps({"result": True, "msg": "", "data": {"result": result}}).encode()


def failed_task(
    cause: str, message: str = "", name: str = "train", ended: float = 0.0, **fields: Any
) -> dict[str, Any]:
    """Return a failed task of such a list."""
    row = {"state": "FAILED", "error_type": cause, "error_message": message, "func_or_class_name": name}
    return {**row, "task_id": "t", "actor_id": None, "end_time_ms": ended, **fields}


def dead_actor(actor_id: str, name: str, **death_cause: Any) -> dict[str, Any]:
    """Return a dead actor of such a list."""
    return {"actor_id": actor_id, "class_name": name, "state": "DEAD", "death_cause": death_cause}
