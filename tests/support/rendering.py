"""Tasks whose templates are rendered as a worker renders them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from tests.support.tries import TaskInstance

if TYPE_CHECKING:
    from collections.abc import Callable

#: Runs a test with a DAG that renders to texts, and with one that renders to Python's own objects.
BOTH = pytest.mark.parametrize("native", [False, True], ids=["texts", "native"])


#: What templates name here, of each type that a param or an XCom may have.
CONTEXT: dict[str, Any] = {
    "n": 3,
    "half": 0.5,
    "version": "3.10",
    "digits": "007",
    "yes": True,
    "nothing": None,
    "json": '{"a": 1}',
    "words": ["python", "a b.py", 7],
    "env": {"env_vars": {"N": 3, "T": "3.10"}, "pip": ["x==1"], "config": {"setup_timeout_seconds": 60}},
    "pairs": {"a": 1, "b": True, "c": "3.10"},
    "resources": {"TPU": 2},
}


class Instance(TaskInstance):
    """A task instance whose XComs are given."""

    def __init__(self, xcoms: dict[str, Any] | None = None) -> None:
        super().__init__("run", 1, 0)
        self.xcoms = xcoms or {}

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", **_: Any) -> Any:
        """Return a value, whichever task it is of."""
        return self.xcoms.get(key)


def rendered(make: Callable[[], Any], *, native: bool, **context: Any) -> Any:
    """Make a task in a DAG that renders in this way, and render it as a worker does."""
    with DAG("rendering", schedule=None, render_template_as_native_obj=native):
        operator = make()
    operator.render_template_fields({"ti": Instance(), **CONTEXT, **context})
    return operator
