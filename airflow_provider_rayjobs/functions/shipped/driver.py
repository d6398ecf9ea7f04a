"""
Runs on the cluster, as the driver of a job that ``@task.ray_job`` submits.

It reads the function from its folder and the arguments from another one, calls the function, and writes the result into
a file (see :mod:`~airflow_provider_rayjobs.functions.shipped.result_file`).

This module is shipped to the cluster: it needs the standard library only, of Python 3.9 or newer.
"""

from __future__ import annotations
import __future__

import ast
import hashlib
import importlib
import json
import linecache
import pickle
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_rayjobs.functions.shipped import values
from airflow_provider_rayjobs.functions.shipped.result_file import (
    TASK_FILE,
    call_digest,
    job_log,
    result_beside,
    store_for,
    write_at_once,
    write_record,
)
from airflow_provider_rayjobs.progress import reporter

if TYPE_CHECKING:
    from collections.abc import Callable

#: Name of the file with the arguments of the call, in another folder on the path.
CALL_FILE = "airflow_ray_job_call.json"

#: Longest traceback that is kept in the result, in characters.
LONGEST_TRACEBACK = 20_000


def main(folder: str) -> None:
    """
    Run the task in a folder; end the process with an error if it fails.

    :param folder: where :data:`TASK_FILE` is.
    :raises FileNotFoundError: if no folder on the path has the job's own :data:`CALL_FILE`.
    """
    output = result_beside(job_log())
    task = {**json.loads((Path(folder) / TASK_FILE).read_text()), **json.loads(_arguments())}
    output.unlink(missing_ok=True)  # of an earlier job with this id, whose record was deleted
    reporter().start(write_at_once)
    try:
        store = store_for(task["result_path"], output, f"the value of {task['name']}")
        value = _call(task)
        text = values.dumps(value, f"the value that {task['name']} returned")
        stored = None
        if len(text) > task["limit"]:
            if store is None:
                raise ValueError(
                    f"the value that {task['name']} returned has {len(text):,} bytes as JSON, and Ray returns at most "
                    f"{task['limit']:,}; give @task.ray_job a result_path, a URL that the cluster and the Airflow "
                    "workers can reach, or return less"
                )
            stored = store(text)
    except BaseException as e:  # noqa: BLE001 - a SystemExit of the function is a failure, too
        reporter().flush()
        _fail(e, task["file"], output)
    reporter().flush()
    if stored is not None:
        write_record(output, "stored", "", of=text, key=stored.key, progress=reporter().last)
    else:
        write_record(output, "value", text, progress=reporter().last)


def _arguments() -> bytes:
    """
    Return the content of :data:`CALL_FILE`, from a folder on the path: Ray puts each package of ``py_modules`` there.

    The user's folders are on the path, too, and may have such a file of another call. So its digest is compared.
    """
    digest = call_digest()
    for path in (Path(folder, CALL_FILE) for folder in sys.path):
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                return content
    raise FileNotFoundError(f"the job's own {CALL_FILE} is not on its path; was py_modules changed?")


def _call(task: dict[str, Any]) -> Any:
    function = load_function(task)
    if task["serializer"] == "cloudpickle":
        args, kwargs = _unpickle(task)
    else:
        args, kwargs = values.decode(task["args"]), values.decode(task["kwargs"])
    return function(*args, **kwargs)


def _unpickle(task: dict[str, Any]) -> Any:
    try:
        importlib.import_module("cloudpickle")
    except ModuleNotFoundError:  # Ray has its own copy, under another name
        for name in ("cloudpickle", "cloudpickle.cloudpickle"):
            sys.modules[name] = importlib.import_module(f"ray.{name}")
    try:
        return pickle.loads(bytes.fromhex(task["pickled"]))  # noqa: S301  made by the worker, read on the cluster
    except Exception as e:  # unpickling runs code of the arguments, which may raise anything
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise RuntimeError(
            f"the arguments were pickled by Python {task['python']}, and the cluster's Python {here} can't read them: "
            f"{e!r}; both sides need the same Python, and a matching cloudpickle, which runtime_env['pip'] can install"
        ) from e


def parse_function(source: str, file: str, first: int) -> ast.Module:
    """
    Parse the lines of a function; line numbers are those of its file.

    :param source: the lines, indented or not.
    :param file: name of the file.
    :param first: number of the first line.
    :raises SyntaxError: if they are not valid Python.
    """
    if source[:1].isspace():  # a nested function; dedenting it would change multi-line strings
        source, first = "if True:\n" + source, first - 1
    tree = ast.parse(source, file)
    ast.increment_lineno(tree, first - 1)
    return tree


def load_function(task: dict[str, Any]) -> Callable[..., Any]:
    """
    Create the function from its source, so that tracebacks show the DAG file and its lines.

    Its module becomes ``__main__``: Ray sends what is defined there to its workers by value.
    """
    tree = parse_function(task["source"], task["file"], task["line"])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == task["name"]:
            node.decorator_list = []  # Airflow's own; another one is refused before the submission
            break
    # Annotations are not evaluated: they may name what only the DAG file imports.
    flags = __future__.annotations.compiler_flag
    code = compile(tree, task["file"], "exec", flags=flags, dont_inherit=True)
    lines = ["\n"] * (task["line"] - 1) + task["source"].splitlines(keepends=True)
    linecache.cache[task["file"]] = (len(task["source"]), None, lines, task["file"])
    module = types.ModuleType("__main__")
    module.__dict__["_launcher"] = sys.modules.get("__main__")  # kept alive
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # noqa: S102  this is what the job is for
    function: Callable[..., Any] = module.__dict__[task["name"]]
    return function


def _fail(error: BaseException, file: str, output: Path) -> NoReturn:
    """Report what the function raised, with its traceback from the function on; end the process."""
    begin = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename != file:
        begin = begin.tb_next
    text = "".join(traceback.format_exception(type(error), error, begin))
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the job's log is where the author looks
    if len(text) > LONGEST_TRACEBACK:
        half = LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    write_record(output, "error", json.dumps(text), progress=reporter().last)
    code = error.code if isinstance(error, SystemExit) else 1
    raise SystemExit(code if isinstance(code, int) and code else 1)
