"""
Rewrites DAG files of ``astro-provider-ray`` (0.4.0 and earlier), by the table in ``docs/migration``.

What can't be rewritten safely stays as it is, and is named with its line.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.migration.source import Item, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeGuard

#: The old provider's package.
OLD = "ray_provider"

#: The modules of its operators and its decorator, by version.
OPERATORS = (f"{OLD}.operators", f"{OLD}.operators.ray")
DECORATORS = (f"{OLD}.decorators", f"{OLD}.decorators.ray")

#: The module of clusters that KubeRay makes.
KUBERAY = "airflow_provider_rayjobs.kuberay"

#: The new class of each operator, and its module.
NEW_OPERATORS = {
    "SubmitRayJob": ("RaySubmitJobOperator", "airflow_provider_rayjobs.operators"),
    "SetupRayCluster": ("RayClusterUpOperator", KUBERAY),
    "DeleteRayCluster": ("RayClusterDownOperator", KUBERAY),
}

#: Arguments of a job with another name.
RENAMED = {
    "num_cpus": "entrypoint_num_cpus",
    "num_gpus": "entrypoint_num_gpus",
    "memory": "entrypoint_memory",
    "resources": "entrypoint_resources",
    "fetch_logs": "stream_logs",
    "job_timeout_seconds": "job_timeout",
}

#: Arguments about the installation in Kubernetes, which is not made by a DAG any more.
OF_KUBERNETES = ("kuberay_version", "gpu_device_plugin_yaml", "update_if_exists", "use_gpu")

#: Arguments that name a cluster.
OF_CLUSTER = ("conn_id", "ray_cluster_yaml", "xcom_task_key")

#: What ``config`` of the decorator may contain.
CONFIG_KEYS = {
    *RENAMED,
    *OF_KUBERNETES,
    *OF_CLUSTER,
    "runtime_env",
    "wait_for_completion",
    "poll_interval",
}


@dataclass(frozen=True, order=True)
class Remark:
    """
    What a person has to know.

    :param line: number of the line in the file as it was.
    :param text: what to do.
    :param is_left: whether something was not rewritten.
    """

    line: int
    text: str
    is_left: bool = False


class _LeftError(Exception):
    """This place can't be rewritten; the text says what to do."""


@dataclass
class _Given:
    """An argument as it is written: of a call, or of ``config``."""

    name: str
    value: ast.expr
    start: int
    end: int


@dataclass
class _Argument:
    """
    An argument of the result.

    :param text: its value; None if it is left out.
    :param given: the one in its place before; None if it is new.
    """

    name: str
    text: str | None
    given: _Given | None = None

    def item(self, text: str) -> Item:
        """Return it as the item of a call or a dict, which is written as ``text``."""
        if self.name == "**":
            text = f"**{self.text}"
        start, end = (self.given.start, self.given.end) if self.given else (None, None)
        return Item(None if self.text is None else text, start, end)


@dataclass
class _Names:
    """What a file imports from the old provider."""

    operators: dict[str, str] = field(default_factory=dict)
    decorators: set[str] = field(default_factory=set)
    imports: list[ast.ImportFrom] = field(default_factory=list)


class Migration:
    """
    The rewriting of one file.

    :param content: the file's content.
    :raises SyntaxError: it is not valid Python.
    """

    def __init__(self, content: bytes) -> None:
        self.source = Source(content)
        self.remarks: list[Remark] = []
        self._new_imports: dict[str, set[str]] = {}
        self._tree = self.source.tree
        self._parents = {child: node for node in ast.walk(self._tree) for child in ast.iter_child_nodes(node)}
        self._names = self._imported()
        self._setups = list(self._setup_calls())
        self._defaults = self._default_names()
        self._configs: set[str] = set()
        self._kept: set[str] = set()
        self._rewrite()
        self.text = self.source.result()

    @property
    def left(self) -> bool:
        """Whether something is left for a person."""
        return any(remark.is_left for remark in self.remarks)

    def _say(self, node: ast.AST, text: str, *, is_left: bool = False) -> None:
        self.remarks.append(Remark(node.lineno, text, is_left))  # type: ignore[attr-defined]

    # Names

    def _imported(self) -> _Names:
        names = _Names()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                if any(alias.name.partition(".")[0] == OLD for alias in node.names):
                    self._say(node, f"write this as `from {OLD}.… import …`, and run this again", is_left=True)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == OLD and not node.level:
                if node.module in OPERATORS and all(alias.name in NEW_OPERATORS for alias in node.names):
                    names.operators |= {alias.asname or alias.name: alias.name for alias in node.names}
                    names.imports.append(node)
                elif node.module in DECORATORS and all(alias.name == "ray" for alias in node.names):
                    names.decorators |= {alias.asname or alias.name for alias in node.names}
                    names.imports.append(node)
                else:
                    self._say(node, "RayHook becomes RayJobHook of airflow_provider_rayjobs.hooks", is_left=True)
        return names

    def _setup_calls(self) -> Iterator[ast.Call]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and self._operator_of(node) == "SetupRayCluster":
                yield node

    def _default_names(self) -> set[str]:
        """Return the names in the ``default_args`` of this file, as far as they are written out in it."""
        values = [node.value for node in ast.walk(self._tree) if _is_default_args(node)]
        variables = {value.id for value in values if isinstance(value, ast.Name)}
        for node in ast.walk(self._tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                values += [node.value for one in targets if isinstance(one, ast.Name) and one.id in variables]
        return {name for value in values for name in _names_in(value)}

    def _operator_of(self, call: ast.Call) -> str:
        """Return the old name of the operator that a call, or its ``partial``, makes; empty if it makes none."""
        func = call.func
        if isinstance(func, ast.Attribute) and func.attr == "partial":
            func = func.value
        return self._names.operators.get(func.id, "") if isinstance(func, ast.Name) else ""

    def _scope(self, node: ast.AST) -> ast.AST:
        """Return the function, or the module, that a node is in."""
        while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module):
            node = self._parents[node]
        return node

    # Rewriting

    def _rewrite(self) -> None:
        handled: set[ast.AST] = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    if (name := self._decorator_name(decorator)) is not None:
                        handled.add(name)
                        self._attempt(name, decorator, partial(self._rewrite_decorator, decorator))
            elif isinstance(node, ast.Call) and (old := self._operator_of(node)):
                func = node.func.value if isinstance(node.func, ast.Attribute) else node.func
                handled.add(func)
                self._attempt(func, node, partial(self._rewrite_operator, node, old))
        for node in ast.walk(self._tree):
            is_old = isinstance(node, ast.Name) and node.id in self._names.operators
            if is_old and node not in handled:
                self._kept.add(node.id)  # type: ignore[attr-defined]
                self._say(node, f"rewrite this use of {node.id} by hand", is_left=True)  # type: ignore[attr-defined]
        self._rewrite_imports()
        self.remarks = sorted(set(self.remarks))

    def _attempt(self, name: ast.AST, node: ast.AST, rewrite: Callable[[], None]) -> None:
        before = list(self.remarks), {module: set(names) for module, names in self._new_imports.items()}
        edits = self.source.number_of_edits
        try:
            rewrite()
        except _LeftError as e:
            self.remarks, self._new_imports = before
            self.source.drop_edits(edits)
            if isinstance(name, ast.Name):
                self._kept.add(name.id)
            self._say(node, str(e), is_left=True)

    def _decorator_name(self, decorator: ast.expr) -> ast.Name | None:
        func = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(func, ast.Attribute) and func.attr == "task" and isinstance(func.value, ast.Name):
            return func.value if func.value.id in self._names.decorators else None
        return None

    def _given(self, call: ast.Call) -> list[_Given]:
        if call.args:
            raise _LeftError("write its arguments with their names, and run this again")
        source = self.source
        return [_Given(k.arg or "**", k.value, source.start(k), source.end(k)) for k in call.keywords]

    def _rewrite_operator(self, call: ast.Call, old: str) -> None:
        new, module = NEW_OPERATORS[old]
        is_partial = isinstance(call.func, ast.Attribute)
        if is_partial and old != "SubmitRayJob":
            raise _LeftError(
                "a mapped cluster can't be rewritten: make it for each task, with cluster=KubeRayCluster(…)"
            )
        given = self._given(call)
        if any(argument.name == "**" for argument in given):
            self._say(call, "rename the arguments that come with ** as in docs/migration")
        arguments = {"SubmitRayJob": self._job, "SetupRayCluster": self._setup, "DeleteRayCluster": self._delete}[old]
        self._refuse_defaults(call, old)
        self._rewrite_call(call, arguments(call, given))
        self.source.replace(call.func.value if isinstance(call.func, ast.Attribute) else call.func, new)
        self._import(module, new)
        if is_partial:
            self._rewrite_expand(call)

    def _refuse_defaults(self, call: ast.Call, old: str) -> None:
        """
        Refuse an operator with arguments from ``default_args``: their new names are others, so they would be ignored.

        The old operators require ``conn_id``: if it is not written here, it comes from there.
        """
        given = {keyword.arg for keyword in (*call.keywords, *self._mapped(call))}
        of_operator = {"SubmitRayJob": (*RENAMED, *OF_CLUSTER), "SetupRayCluster": ("conn_id",), "DeleteRayCluster": ()}
        names = [name for name in of_operator[old] if name in self._defaults and name not in given]
        if old != "DeleteRayCluster" and not {"conn_id", None} & given and "conn_id" not in names:
            names.append("conn_id")
        key = _argument(call, "xcom_task_key")
        if key is not None and not _is_none(key):  # the connection is not used
            names = [name for name in names if name != "conn_id"]
        if names:
            them = ", ".join(sorted(names))
            raise _LeftError(f"from default_args it takes {them}: write that here, with its value, and run this again")

    def _mapped(self, call: ast.Call) -> list[ast.keyword]:
        """Return the arguments of ``.expand(…)`` after ``.partial(…)``; one without a name if they are not known."""
        if not isinstance(call.func, ast.Attribute):
            return []
        method = self._parents[call]
        expand = self._parents[method]
        is_known = isinstance(method, ast.Attribute) and method.attr == "expand" and isinstance(expand, ast.Call)
        return expand.keywords if is_known else [ast.keyword(None, call)]  # type: ignore[attr-defined]

    def _rewrite_call(self, call: ast.Call, arguments: Sequence[_Argument]) -> None:
        opened = self.source.text.index("(", self.source.end(call.func)) + 1
        items = [argument.item(f"{argument.name}={argument.text}") for argument in arguments]
        self.source.rewrite_items(opened, self.source.end(call) - 1, items)

    def _rewrite_expand(self, mapped: ast.Call) -> None:
        """Rename the arguments of ``.expand(…)`` after ``.partial(…)``."""
        method = self._parents[mapped]
        call = self._parents[method]
        if not isinstance(method, ast.Attribute) or not isinstance(call, ast.Call) or method.attr != "expand":
            self._say(mapped, "rename the arguments of its expansion as in docs/migration", is_left=True)
            return
        for keyword in call.keywords:
            if keyword.arg in (*OF_CLUSTER, *OF_KUBERNETES):
                self._say(keyword, f"rewrite the mapped {keyword.arg} by hand", is_left=True)
            elif keyword.arg in RENAMED:
                self.source.replace(keyword, f"{RENAMED[keyword.arg]}={self.source.segment(keyword.value)}")

    def _import(self, module: str, name: str) -> None:
        self._new_imports.setdefault(module, set()).add(name)

    # Arguments

    def _job(self, call: ast.AST, given: Sequence[_Given], *, is_function: bool = False) -> list[_Argument]:
        """Return the new arguments of a job."""
        named = {argument.name: argument for argument in given}
        cluster = self._cluster_of_job(call, named)
        arguments, place = [], _place_of_cluster(given)
        for argument in given:
            name, value = argument.name, argument.value
            if cluster and name == place:
                arguments.append(_Argument("cluster", cluster, argument))
            elif name == "conn_id" and not cluster:
                self._say(value, f"connection {self.source.segment(value)} must have the type ray_jobs")
                arguments.append(_Argument("ray_conn_id", self.source.segment(value), argument))
            elif name in (*OF_CLUSTER, *OF_KUBERNETES) or _means_nothing(name, value):
                arguments.append(_Argument(name, None, argument))
            else:
                if name == "job_timeout_seconds" and not isinstance(value, ast.Constant):
                    self._say(value, "job_timeout must not be 0; leave it out for no limit")
                arguments.append(_Argument(RENAMED.get(name, name), self.source.segment(value), argument))
        self._say_of_kubernetes(given)
        if is_function and "num_cpus" not in named:
            arguments.append(_Argument("entrypoint_num_cpus", "1"))
        if "job_timeout_seconds" not in named:
            arguments.append(_Argument("job_timeout", "600"))
        waits = named.get("wait_for_completion")
        if "deferrable" not in named and (waits is None or _literal(waits.value) is not False):
            arguments.append(_Argument("deferrable", "True"))
        return arguments

    def _cluster_of_job(self, call: ast.AST, named: Mapping[str, _Given]) -> str:
        """Return the ``cluster`` of a job; empty if it uses a connection."""
        spec = named.get("ray_cluster_yaml")
        if spec is not None and not _is_none(spec.value):
            return self._new_cluster(named)
        key = named.get("xcom_task_key")
        if key is None or _is_none(key.value):
            return ""
        text = _literal(key.value)
        task_id = text.partition(".")[0] if isinstance(text, str) else ""
        named_so = [setup for setup in self._setups if task_id and _literal(_argument(setup, "task_id")) == task_id]
        key_text = self.source.segment(key.value)
        if not named_so:
            raise _LeftError(f"no SetupRayCluster of this file has the task_id of xcom_task_key={key_text}")
        near = [setup for setup in named_so if self._scope(setup) is self._scope(call)]
        # Also those whose task_id is not written out: it may be this one, in another DAG of the file.
        others = [
            setup
            for setup in self._setups
            if self._scope(setup) is self._scope(call) and not isinstance(_literal(_argument(setup, "task_id")), str)
        ]
        if len(near) + len(others) > 1:
            raise _LeftError(
                f"several SetupRayCluster here may have the task_id of xcom_task_key={key_text}; write "
                "RaySubmitJobOperator(cluster=….output) by hand, with the one of this DAG"
            )
        return self._output_of(call, (near or named_so)[0])

    def _new_cluster(self, named: Mapping[str, _Given]) -> str:
        if "**" in named:
            raise _LeftError("write the arguments that come with ** as arguments, and run this again")
        spec, connection = named["ray_cluster_yaml"].value, named.get("conn_id")
        path = _literal(spec)
        if isinstance(path, str) and not path.startswith(("/", "{")):
            self._say(spec, f"{path!r} is now searched like templates: next to the DAG file, or in template_searchpath")
        made = self.source.segment(spec)
        if connection is not None:
            conn_id = self.source.segment(connection.value)
            made += f", kubernetes_conn_id={conn_id}"
            self._say(connection.value, f"connection {conn_id} must have the type kubernetes")
        self._import(KUBERAY, "KubeRayCluster")
        return f"KubeRayCluster({made})"

    def _output_of(self, call: ast.AST, setup: ast.Call) -> str:
        """Return the expression for the cluster that a setup task makes."""
        target = self._parents[setup]
        names = target.targets if isinstance(target, ast.Assign) else []
        if len(names) != 1 or not isinstance(names[0], ast.Name):
            raise _LeftError("assign the SetupRayCluster to a variable, and run this again")
        is_before = setup.lineno < call.lineno  # type: ignore[attr-defined]
        if not is_before or self._scope(setup) is not self._scope(call):
            raise _LeftError("move the SetupRayCluster before this, into the same function, and run this again")
        name = names[0].id
        if self._is_assigned_again(name, setup):
            raise _LeftError(
                f"variable {name} of the SetupRayCluster is assigned more than once: give each SetupRayCluster a "
                "variable of its own, and run this again"
            )
        is_plain = isinstance(setup.func, ast.Name) and not setup.args
        if not is_plain or not {"conn_id", "ray_cluster_yaml"} <= {keyword.arg for keyword in setup.keywords}:
            raise _LeftError("its SetupRayCluster can't be rewritten; mend that first, and run this again")
        return f"{name}.output"

    def _is_assigned_again(self, name: str, setup: ast.Call) -> bool:
        """Whether the variable of a setup gets, or loses, a value elsewhere too."""
        changes = 0
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load):
                changes += self._scope(node) is self._scope(setup)
            elif isinstance(node, ast.Global | ast.Nonlocal) and name in node.names:
                changes += 1
        return changes != 1

    def _setup(self, call: ast.Call, given: Sequence[_Given]) -> list[_Argument]:
        named = {argument.name: argument for argument in given}
        if "ray_cluster_yaml" not in named:
            raise _LeftError("it has no ray_cluster_yaml")
        cluster = self._new_cluster(named)
        self._say_of_kubernetes(given)
        return self._with_cluster(given, cluster)

    def _delete(self, call: ast.Call, given: Sequence[_Given]) -> list[_Argument]:
        spec = _argument(call, "ray_cluster_yaml")
        near = [setup for setup in self._setups if self._scope(setup) is self._scope(call)]
        # One that is not written out may be the same.
        same = [setup for setup in near if spec and _dump(_argument(setup, "ray_cluster_yaml")) in ("", _dump(spec))]
        if len(same) != 1:
            raise _LeftError("no single SetupRayCluster near it has the same ray_cluster_yaml; rewrite this by hand")
        if ".as_teardown(" not in self.source.text:
            self._say(
                call,
                "if a task before it fails, this is skipped, and the cluster stays for its lifetime: call "
                "as_teardown(), or use `with ray_cluster(…)`",
            )
        return self._with_cluster(given, self._output_of(call, same[0]))

    def _with_cluster(self, given: Sequence[_Given], cluster: str) -> list[_Argument]:
        """Return the arguments with ``cluster`` in place of those that named it."""
        arguments, place = [], _place_of_cluster(given)
        for argument in given:
            if argument.name == place:
                arguments.append(_Argument("cluster", cluster, argument))
            else:
                dropped = argument.name in (*OF_KUBERNETES, *OF_CLUSTER)
                arguments.append(
                    _Argument(argument.name, None if dropped else self.source.segment(argument.value), argument)
                )
        return arguments

    def _say_of_kubernetes(self, given: Sequence[_Given]) -> None:
        what = {"kuberay_version": "KubeRay's operator 1.6 or later", "gpu_device_plugin_yaml": "the GPU device plugin"}
        for argument in given:
            if argument.name in what and _literal(argument.value) not in ("", None):
                self._say(argument.value, f"install {what[argument.name]} once in the Kubernetes cluster, not in a DAG")

    # The decorator

    def _rewrite_decorator(self, decorator: ast.expr) -> None:
        task = self._task_name()
        arguments: list[_Argument] = []
        given = self._given(decorator) if isinstance(decorator, ast.Call) else []
        configs = [argument.value for argument in given if argument.name == "config"]
        for argument in given:
            if argument.name != "config":
                arguments.append(_Argument(argument.name, self.source.segment(argument.value), argument))
            elif isinstance(argument.value, ast.Dict):
                arguments += self._job(decorator, self._entries(argument.value), is_function=True)
            else:
                text = self.source.segment(argument.value)
                self._rewrite_config(argument.value, decorator)
                arguments.append(_Argument("**", text, argument))
        if not configs:
            arguments += self._job(decorator, [], is_function=True)
        placed = sorted((one for one in arguments if one.given), key=lambda one: one.given.start if one.given else 0)
        arguments = [*placed, *(one for one in arguments if not one.given)]
        if isinstance(decorator, ast.Call):
            self._rewrite_call(decorator, arguments)
            self.source.replace(decorator.func, f"{task}.ray_job")
        else:
            written = ", ".join(f"{one.name}={one.text}" for one in arguments)
            self.source.replace(decorator, f"{task}.ray_job({written})")

    def _entries(self, config: ast.Dict) -> list[_Given]:
        """Return the entries of a ``config``."""
        entries = []
        for key, value in zip(config.keys, config.values, strict=True):
            name = _literal(key)
            if name == "entrypoint":
                raise _LeftError("its config has an entrypoint: write a RaySubmitJobOperator instead")
            if key is None or name not in CONFIG_KEYS:
                raise _LeftError("its config must be a dict whose keys are written out and known; rewrite this by hand")
            entries.append(_Given(str(name), value, self.source.start(key), self.source.end(value)))
        return entries

    def _rewrite_config(self, config: ast.expr, decorator: ast.expr) -> None:
        """Rewrite a ``config`` that is in a variable; once, if several decorators use it."""
        name = config.id if isinstance(config, ast.Name) else ""
        by_hand = _LeftError(
            f"config={self.source.segment(config)}: write its values as arguments of @task.ray_job, with templates for "
            "what a function computed"
        )
        uses = [node for node in ast.walk(self._tree) if isinstance(node, ast.Name) and node.id == name]
        made = [self._parents[node] for node in uses if isinstance(node.ctx, ast.Store)]
        others = [node for node in uses if isinstance(node.ctx, ast.Load) and not self._is_config(node)]
        if len(made) != 1 or others or not isinstance(made[0], ast.Assign) or not isinstance(made[0].value, ast.Dict):
            raise by_hand
        if name in self._configs:
            return
        self._configs.add(name)
        value = made[0].value
        arguments = self._job(made[0], self._entries(value), is_function=True)
        items = [argument.item(f'"{argument.name}": {argument.text}') for argument in arguments]
        self.source.rewrite_items(self.source.start(value) + 1, self.source.end(value) - 1, items)

    def _is_config(self, node: ast.AST) -> bool:
        """Whether a name is the ``config`` of a decorator."""
        keyword = self._parents[node]
        if not isinstance(keyword, ast.keyword) or keyword.arg != "config":
            return False
        call = self._parents[keyword]
        return isinstance(call, ast.Call) and self._decorator_name(call) is not None

    def _task_name(self) -> str:
        """Return the name of Airflow's ``task`` decorator in this file; it is imported if it is not there."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "airflow":
                for alias in node.names:
                    if alias.name == "task":
                        return alias.asname or "task"
        for node in ast.walk(self._tree):
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias) else []
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.append(node.id)
            if "task" in names:
                raise _LeftError("import Airflow's decorator `task`; this file uses the name for something else")
        self._import("airflow.providers.common.compat.sdk", "task")
        return "task"

    # Imports

    def _rewrite_imports(self) -> None:
        lines = [
            f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(self._new_imports.items())
        ]
        module_level = [node for node in self._names.imports if self._parents[node] is self._tree]
        for node in self._names.imports:
            kept = [alias for alias in node.names if (alias.asname or alias.name) in self._kept]
            written = []
            if module_level and node is module_level[0]:
                written, lines = lines, []
            if kept:
                names = ", ".join(f"{one.name} as {one.asname}" if one.asname else one.name for one in kept)
                written = [*written, f"from {node.module} import {names}"]
            if written:
                indent = self.source.newline + self.source.indent(self.source.start(node))
                self.source.replace(node, indent.join(written))
            elif len(getattr(self._parents[node], "body", [])) > 1:
                self.source.remove_statement(node)
            else:
                self.source.replace(node, "pass")
        if lines:  # the old provider is imported in functions only
            node = self._names.imports[0]
            for text in lines:
                self._say(node, f"add `{text}`", is_left=True)


def _place_of_cluster(given: Sequence[_Given]) -> str:
    """Return the first argument that names the cluster, which ``cluster`` replaces."""
    return next((argument.name for argument in given if argument.name in OF_CLUSTER), "")


def _argument(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _is_default_args(node: ast.AST) -> TypeGuard[ast.keyword]:
    return isinstance(node, ast.keyword) and node.arg == "default_args"


def _names_in(value: ast.expr) -> set[str]:
    """Return the keys of a dict that is written out."""
    if isinstance(value, ast.Dict):
        return {key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    is_dict = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict"
    return {keyword.arg for keyword in value.keywords if keyword.arg} if is_dict else set()  # type: ignore[attr-defined]


def _dump(node: ast.expr | None) -> str:
    return "" if node is None else ast.dump(node)


def _literal(node: ast.expr | None) -> object:
    """Return the value of a constant, an empty dict as a dict, and anything else as the node itself."""
    if isinstance(node, ast.Constant):
        value: object = node.value
        return value
    return {} if isinstance(node, ast.Dict) and not node.keys else node


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _means_nothing(name: str, value: ast.expr) -> bool:
    """Whether an argument says the same as none."""
    literal = _literal(value)
    if name == "resources":
        return literal is None or literal == {}
    numbers = ("num_cpus", "num_gpus", "memory", "job_timeout_seconds")
    return name in numbers and isinstance(literal, int | float) and literal == 0
