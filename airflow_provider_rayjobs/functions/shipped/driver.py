"""
Runs on the cluster, as the driver of a job that ``@task.ray_job`` submits.

It reads the function from its folder and the arguments from another one, calls the function, and writes the result into
a file beside the job's log (``job-driver-<submission id>.log`` becomes ``….result``), where Ray's dashboard serves it.
The file appears whole or not at all, and states the length and digest of the value.

This module is shipped to the cluster: it needs the standard library only, of Python 3.9 or newer.
"""

from __future__ import annotations
import __future__

import ast
import hashlib
import importlib
import json
import linecache
import os
import pickle
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_rayjobs.functions.shipped import values
from airflow_provider_rayjobs.progress import reporter

if TYPE_CHECKING:
    from collections.abc import Callable

#: Name of the file that describes the function, beside this package.
FUNCTION_FILE = "airflow_ray_job.json"

#: Name of the file with the arguments of the call, in another folder on the path.
CALL_FILE = "airflow_ray_job_call.json"

FORMAT = 1

#: Longest traceback that is kept in the result, in characters.
LONGEST_TRACEBACK = 20_000


def main(folder: str) -> None:
    """
    Run the task in a folder; end the process with an error if it fails.

    :param folder: where :data:`FUNCTION_FILE` is.
    :raises FileNotFoundError: if no folder on the path has :data:`CALL_FILE`.
    """
    task = {**json.loads((Path(folder) / FUNCTION_FILE).read_text()), **json.loads(_find(CALL_FILE).read_text())}
    log = log_file(1)
    output = log.with_suffix(".result")
    output.unlink(missing_ok=True)  # of an earlier job with this id, whose record was deleted
    store = store_for(task["result_path"], output.stem[len("job-driver-") :])
    reporter().start(_write_at_once)
    try:
        value = _call(task)
        text = values.dumps(value, f"the value that {task['name']} returned")
        if len(text) > task["limit"] and store is None:
            raise ValueError(
                f"the value that {task['name']} returned has {len(text):,} bytes as JSON, and Ray returns at most "
                f"{task['limit']:,}; give @task.ray_job a result_path, a URL that the cluster and the Airflow workers "
                "can reach, or return less"
            )
    except BaseException as e:  # noqa: BLE001 - a SystemExit of the function is a failure, too
        reporter().flush()
        _fail(e, task["file"], output)
    reporter().flush()
    if len(text) > task["limit"] and store is not None:
        store(text)
        write_record(output, "stored", "", of=text)
    else:
        write_record(output, "value", text)


def _find(name: str) -> Path:
    """Return a file in a folder on the path: Ray puts each package of ``py_modules`` there."""
    for path in (Path(folder, name) for folder in sys.path):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is not on the path of the job; was py_modules changed?")


def _write_at_once(text: str) -> None:
    sys.stdout.flush()
    os.write(1, text.encode())  # the log is open for appending, so this stays in one piece


def log_file(descriptor: int) -> Path:
    """
    Return the path of the job's log, to which Ray redirects the standard output.

    :raises RuntimeError: if the output goes elsewhere.
    """
    try:
        if sys.platform == "darwin":
            import fcntl

            path = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
        else:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError as e:
        path = str(e)
    log = Path(path)
    if not (log.is_absolute() and log.name.startswith("job-driver-") and log.suffix == ".log"):
        raise RuntimeError(
            f"the result can't be written: the standard output goes to {path}, not to the log of a Ray job"
        )
    return log


def store_for(result_path: str | None, name: str) -> Callable[[str], None] | None:
    """
    Return a function that stores a large result; None if there is no ``result_path``.

    :param result_path: URL of a folder.
    :param name: submission id of the job.
    :raises ModuleNotFoundError: if ``fsspec`` is not installed on the cluster.
    """
    if result_path is None:
        return None
    scheme, _, rest = result_path.partition("://")
    if scheme == "file":
        folder = Path("/" + rest.lstrip("/"))

        def write(text: str) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            _write_whole(folder / f"{name}.json", text)

        return write
    try:
        fsspec = importlib.import_module("fsspec")
    except ModuleNotFoundError as e:
        e.msg = f"result_path {result_path} needs fsspec on the cluster; add it to runtime_env['pip']"
        raise
    # The part before an @ is an Airflow connection, which the cluster does not know.
    url = f"{scheme}://{rest.partition('@')[2] or rest}".rstrip("/") + f"/{name}.json"
    filesystem, path = fsspec.core.url_to_fs(url)
    return lambda text: filesystem.pipe_file(path, text.encode())


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
    write_record(output, "error", json.dumps(text))
    code = error.code if isinstance(error, SystemExit) else 1
    raise SystemExit(code if isinstance(code, int) and code else 1)


def write_record(output: Path, outcome: str, text: str, of: str | None = None) -> None:
    """
    Write the result: a line of JSON that describes the content, then the content.

    :param outcome: ``value``, ``error`` or ``stored``.
    :param text: JSON, in ASCII.
    :param of: the text that was stored elsewhere, which the first line then describes.
    """
    described = (text if of is None else of).encode("ascii")
    header = {
        "format": FORMAT,
        "outcome": outcome,
        "bytes": len(described),
        "sha256": hashlib.sha256(described).hexdigest(),
        "progress": reporter().last,
    }
    _write_whole(output, f"{json.dumps(header)}\n{text}")


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="ascii")
    part.replace(path)
