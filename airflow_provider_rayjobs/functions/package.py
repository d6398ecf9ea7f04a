"""
Builds the packages that go to the cluster with a job: entries in ``py_modules``.

One holds the modules that the job may import, among them the driver of functions, and one JSON file: a function, or how
a command reports its result. All calls of the function, or all such commands, share it. For a function, the other one
holds the arguments of one call. So the dashboard, which shows entrypoint and ``runtime_env``, does not show the
arguments, and the limits for command lines and environments do not apply. The user's ``working_dir`` and ``py_modules``
stay as they are.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import sys
import tokenize
import types
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_rayjobs import __name__ as PACKAGE  # noqa: N812 - a constant
from airflow_provider_rayjobs import metadata
from airflow_provider_rayjobs.exceptions import RayPackageTooLargeError
from airflow_provider_rayjobs.functions.shipped import driver, values
from airflow_provider_rayjobs.functions.shipped.result_file import TASK_FILE
from airflow_provider_rayjobs.packaging.stores import store_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_rayjobs.packaging.stores import Store

#: Largest value that Ray returns, in bytes of JSON.
RESULT_LIMIT = 16 * 1024 * 1024

SERIALIZERS = ("json", "cloudpickle")

#: Ray's store gets the arguments of one call without a look whether it has them: it never has. Larger ones are looked
#: for all the same, because Ray then deletes them after 10 minutes if the job is not submitted.
LOOKED_FOR = 64 * 1024

#: The module that the entrypoint runs; it puts its own folder first on the job's path.
LAUNCHER = "airflow_ray_job"
_LAUNCHER_SOURCE = """\
import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, folder)
from airflow_provider_rayjobs.functions.shipped.driver import main

main(folder)
"""

#: The modules of this provider that the job imports.
_SHIPPED = (
    "functions.shipped.driver",
    "functions.shipped.result_file",
    "functions.shipped.values",
    "job",
    "metadata",
    "progress",
)

#: If this provider is installed on the cluster too, its other modules can be imported beside the shipped ones.
_INIT_SOURCE = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"


def check_function(function: Callable[..., Any]) -> None:
    """
    Check that a function can be shipped as its source.

    :raises TypeError: if it is not a plain function that is defined with ``def``.
    :raises ValueError: if it uses variables of an enclosing function, or a default uses names of its module.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not isinstance(function, types.FunctionType) or function.__name__ == "<lambda>":
        raise TypeError(f"@task.ray_job needs a function that is defined with def, not {name}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"@task.ray_job: {name} is asynchronous; define it with def, and use asyncio.run inside")
    if hasattr(function, "__wrapped__"):
        raise TypeError(f"@task.ray_job: {name} has another decorator below it, which can't be shipped; remove it")
    if function.__code__.co_freevars:
        used = ", ".join(function.__code__.co_freevars)
        raise ValueError(
            f"@task.ray_job: {name} uses {used} of the enclosing function, which the cluster does not have; "
            "pass it as an argument, or define it inside"
        )
    _check_defaults(function)


def _check_defaults(function: Callable[..., Any]) -> None:
    """
    Check that the defaults of a function's parameters can be evaluated on the cluster, which does not have its module.

    Annotations are not evaluated there, and Airflow's own decorator is removed.

    :raises ValueError: if a default uses a name that only the DAG file has.
    """
    if not function.__defaults__ and not function.__kwdefaults__:
        return
    try:
        found = _definition(function, inspect.getsource(function))
    except (OSError, TypeError, SyntaxError, StopIteration, tokenize.TokenError):
        return  # reported when the task runs, which needs the source
    args = found.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [*zip(positional[len(positional) - len(args.defaults) :], args.defaults, strict=True)]
    defaults += [(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default]
    there = set(dir(builtins)) - function.__globals__.keys()
    for arg, default in defaults:
        if names := sorted(_names_of(default) - there):
            raise ValueError(
                f"@task.ray_job: the default of {function.__qualname__}'s parameter {arg.arg} uses {', '.join(names)}, "
                "which the cluster does not have; write the value itself, or pass it in the call"
            )


def _names_of(expression: ast.expr) -> set[str]:
    """Return the names that an expression uses, except its own, such as a lambda's arguments."""
    nodes = [*ast.walk(expression)]
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return {node.id for node in nodes if isinstance(node, ast.Name)} - own


def _definition(function: Callable[..., Any], source: str) -> ast.FunctionDef:
    """
    Return the definition of a function in its source.

    :raises SyntaxError: if the source is not valid Python.
    :raises StopIteration: if it defines no function.
    """
    tree = driver.parse_function(source, function.__code__.co_filename, 1)
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


class Task(NamedTuple):
    """
    What the job's code must know of its task, or the packages with it.

    :param shared: the function, the same for all its calls; or how a command reports its result.
    :param call: of a function: the arguments, and where the value goes. A command has none.
    """

    shared: bytes
    call: bytes = b""


def metadata_of(task: Task) -> dict[str, str]:
    """
    Return what the job's metadata must have, so that the driver knows the arguments of its own call.

    :param task: returned by :func:`describe_task` or :func:`describe_command`.
    """
    return {metadata.CALL: hashlib.sha256(task.call).hexdigest()} if task.call else {}


def describe_task(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    serializer: str = "json",
    result_path: str | None = None,
) -> Task:
    """
    Return the files for the driver: the function, its arguments, and where its value goes.

    :param serializer: one of :data:`SERIALIZERS`, for the arguments.
    :param result_path: URL of a folder for a large value.
    :raises TypeError: if an argument can't be serialized.
    :raises ValueError: if the function's source can't be read, or cloudpickle is not installed.
    :raises RuntimeError: if the DAG file was changed after it was read.
    """
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError) as e:
        raise ValueError(f"the source of {function.__qualname__} can't be read: {e}") from e
    _check_source(function, "".join(lines))
    described = {
        "name": function.__name__,
        "source": "".join(lines),
        "file": function.__code__.co_filename,
        "line": max(first, 1),
    }
    task = {
        "serializer": serializer,
        "limit": RESULT_LIMIT,
        "result_path": result_path,
    }
    if serializer == "cloudpickle":
        task |= {"pickled": _pickled(args, kwargs).hex(), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    else:
        task["args"] = [values.encode(value, f"op_args[{i}]") for i, value in enumerate(args)]
        task["kwargs"] = values.encode(dict(kwargs), "op_kwargs")
    return Task(json.dumps(described).encode(), json.dumps(task, allow_nan=False).encode())


def describe_command(*, result_path: str | None = None) -> Task:
    """
    Return the file for a command, which ``airflow_provider_rayjobs.job`` reads.

    :param result_path: URL of a folder for a large value.
    """
    return Task(json.dumps({"limit": RESULT_LIMIT, "result_path": result_path}).encode())


def _check_source(function: Callable[..., Any], source: str) -> None:
    """Check that the lines of the file still define the function."""
    found: ast.FunctionDef | None
    try:
        found = _definition(function, source)
        arguments = [arg.arg for arg in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]
    except (SyntaxError, StopIteration):
        found = None
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if found is None or found.name != function.__name__ or tuple(arguments) != names:
        raise RuntimeError(
            f"{code.co_filename} was changed after it was read, so {function.__name__} can't be shipped; retry the task"
        )


def _pickled(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ModuleNotFoundError as e:
        raise ValueError(
            "serializer='cloudpickle' needs the package cloudpickle on the Airflow worker; install it there"
        ) from e
    try:
        pickled: bytes = cloudpickle.dumps((tuple(args), dict(kwargs)))
    except Exception as e:  # an argument's own __reduce__ may raise anything
        raise TypeError(f"the arguments can't be pickled: {e!r}") from e
    return pickled


def build_packages(task: Task, limit: int) -> Task:
    """
    Return the zip files for ``py_modules``.

    :param task: returned by :func:`describe_task` or :func:`describe_command`.
    :param limit: most bytes that the store accepts.
    :raises ValueError: if a file is larger.
    """
    files = {f"{LAUNCHER}.py": _LAUNCHER_SOURCE.encode()}
    for name in _SHIPPED:
        module = PurePosixPath(PACKAGE, *name.split("."))
        files |= {f"{folder}/__init__.py": _INIT_SOURCE.encode() for folder in module.parents[:-1]}
        files[f"{module}.py"] = _source(name)
    files[TASK_FILE] = task.shared
    packages = Task(_zipped(files), _zipped({driver.CALL_FILE: task.call}) if task.call else b"")
    for package in packages:
        if len(package) > limit:
            raise ValueError(
                f"the function and its arguments have {len(package):,} bytes after compression, and the cluster "
                f"accepts at most {limit:,}; pass the path or URL of large data instead"
            )
    return packages


def _zipped(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # with a fixed date
    return target.getvalue()


def _source(name: str) -> bytes:
    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    if spec is None or spec.origin is None:
        raise ValueError(f"the source of the provider's module {name} was not found")
    return Path(spec.origin).read_bytes()


class _Content(io.BytesIO):
    """The package as the body of a request; ``requests`` reads its length."""

    def __len__(self) -> int:
        return len(self.getbuffer())


def upload_packages(packages: Task, store: Store, key: str) -> list[str]:
    """
    Store the packages of a task.

    :param packages: returned by :func:`build_packages`.
    :param key: makes equal calls of two jobs differ in Ray's own store, where nobody looks whether they are there.
    :return: their URIs.
    :raises RayPackageTooLargeError: if one is too large for the server or a proxy before it.
    """
    own = b"" if store.is_shared_storage else key.encode()

    def send(name: str, package: bytes) -> None:
        if not store.put(name, lambda: _Content(package)):
            raise RayPackageTooLargeError(
                f"the package of {len(package):,} bytes that goes with the job is refused by the server, or by a proxy "
                "in front of it (HTTP 413); pass large values by reference, as a path or URL that the cluster can read"
            )

    name = _name_of(packages.shared)
    store_once(store, name, partial(send, name, packages.shared))
    uris = [store.uri(name)]
    if packages.call:
        name = _name_of(own + packages.call)
        if len(packages.call) <= LOOKED_FOR and not store.is_shared_storage:
            send(name, packages.call)
        else:
            store_once(store, name, partial(send, name, packages.call))
        uris.append(store.uri(name))
    return uris


def _name_of(content: bytes) -> str:
    return f"_ray_pkg_{hashlib.sha1(content, usedforsecurity=False).hexdigest()}.zip"  # as Ray's client names packages
