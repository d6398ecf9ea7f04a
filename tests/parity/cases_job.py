"""Submissions without files: arguments, metadata and settings of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.parity.case import Case, Here

if TYPE_CHECKING:
    from collections.abc import Callable


def probe(**arguments: Any) -> Callable[[Here], dict[str, Any]]:
    """Return a job with the probe and other arguments."""
    return lambda here: {"entrypoint": here.probe(), **arguments}


def command(text: Any, **arguments: Any) -> Callable[[Here], dict[str, Any]]:
    """Return a job with another entrypoint."""
    return lambda here: {"entrypoint": text, **arguments}


_SHELL = """for word in "$PARITY_WORD" 'single; quoted' back\\\\slash; do echo "<$word>"; done | sort >&2 && exit 3"""
_ELSEWHERE = "http://127.0.0.1:9"

CASES = [
    Case("entrypoint", command("echo hello")),
    Case("entrypoint_shell", command(_SHELL, runtime_env={"env_vars": {"PARITY_WORD": "a  b"}}), ends="FAILED"),
    Case("entrypoint_lines", command("echo one\necho 'zwölf 🎈'\n")),
    Case("entrypoint_unknown_command", command("parity-no-such-command"), ends="FAILED"),
    Case("entrypoint_killed", command("kill -9 $$"), ends="FAILED"),
    Case("submission_id_absent", probe(submission_id=None)),
    Case(
        "submission_id_odd", lambda here: {**probe()(here), "submission_id": f"{here.submission_id}_A.b-9"}, "PENDING"
    ),
    Case("metadata", probe(metadata={"owner": "me", "job_name": "zwölf 🎈", "": "", "long": "x" * 2000}), "PENDING"),
    Case("metadata_empty", probe(metadata={}), "PENDING"),
    Case(
        "metadata_merged",
        probe(metadata={"who": "job", "job": "1"}),
        client=lambda here: {"metadata": {"who": "client", "client": "2"}},
    ),
    Case("metadata_of_client", probe(), "PENDING", client=lambda here: {"metadata": {"client": "2"}}),
    Case("num_cpus", probe(entrypoint_num_cpus=0.5), "PENDING"),
    Case("num_gpus", probe(entrypoint_num_gpus=1)),
    Case("memory", probe(entrypoint_memory=20 * 2**20), "PENDING"),
    Case("resources", probe(entrypoint_resources={"parity_widget": 0.25, "parity_gadget": 2})),
    Case("resources_empty", probe(entrypoint_resources={})),
    Case("label_selector", probe(entrypoint_label_selector={"parity-zone": "here"})),
    Case("label_selector_in", probe(entrypoint_label_selector={"parity-zone": "in(here,there)"}), "PENDING"),
    Case("zeros", probe(entrypoint_num_cpus=0, entrypoint_num_gpus=0, entrypoint_memory=0), "PENDING"),
    Case(
        "everything",
        probe(
            metadata={"owner": "me"},
            runtime_env={"env_vars": {"PARITY_A": "1"}},
            entrypoint_num_cpus=1,
            entrypoint_num_gpus=0.5,
            entrypoint_memory=2**20,
            entrypoint_resources={"parity_widget": 1},
            entrypoint_label_selector={"parity-zone": "here"},
        ),
    ),
    Case("runtime_env_empty", probe(runtime_env={}), "PENDING"),
    Case("env_vars", probe(runtime_env={"env_vars": {"PARITY_A": "x y", "PARITY_E": "", "PARITY_H": "${HOME}/ü"}})),
    Case("env_vars_empty", probe(runtime_env={"env_vars": {}}), "PENDING"),
    Case("config", probe(runtime_env={"config": {"setup_timeout_seconds": 99, "eager_install": False}}), "PENDING"),
    Case("config_part", probe(runtime_env={"config": {"setup_timeout_seconds": -1, "unknown": 1}}), "PENDING"),
    Case("config_empty", probe(runtime_env={"config": {}}), "PENDING"),
    Case("setup_hook", probe(runtime_env={"worker_process_setup_hook": "parity.nowhere.hook"}), "PENDING"),
    Case("py_executable", probe(runtime_env={"py_executable": "python -X dev"}), "PENDING"),
    Case("image_uri", probe(runtime_env={"image_uri": "example/image:1", "env_vars": {"A": "b"}}), "PENDING"),
    Case("container", probe(runtime_env={"container": {"image": "x", "run_options": ["-v"]}}), "PENDING"),
    Case("nsight", probe(runtime_env={"nsight": "default"}), "PENDING"),
    Case("rocprof_sys", probe(runtime_env={"rocprof_sys": {"args": {"x": "y"}}}), "PENDING"),
    Case("java_jars", probe(runtime_env={"java_jars": ["https://example.com/a.jar"]}), "PENDING"),
    Case("plugin", probe(runtime_env={"parity_plugin": {"deep": [1, 2.5, None, True]}}), "PENDING"),
    Case("none_values", probe(runtime_env={"working_dir": None, "pip": None, "env_vars": None}), "PENDING"),
    Case(
        "headers",
        probe(),
        "PENDING",
        client=lambda here: {"headers": {"X-Parity": "a b", "Authorization": "Bearer abc"}},
    ),
    Case("cookies", probe(), "PENDING", client=lambda here: {"cookies": {"parity": "a=b", "second": "2"}}),
    Case("address_slash", probe(), "PENDING", client=lambda here: {"address": f"{here.address}/"}),
    Case(
        "address_api_variable",
        probe(),
        "PENDING",
        client=lambda here: {"address": None},
        environ=lambda here: {"RAY_API_SERVER_ADDRESS": here.address, "RAY_ADDRESS": _ELSEWHERE},
    ),
    Case(
        "address_variable",
        probe(),
        "PENDING",
        client=lambda here: {"address": None},
        environ=lambda here: {"RAY_ADDRESS": here.address},
    ),
    Case(
        "address_module",
        probe(metadata={"of": "job"}),
        "PENDING",
        client=lambda here: {
            "address": "parity_manager://inner/place",
            "metadata": {"of": "client"},
            "cookies": {"a": "b"},
            "create_cluster_if_needed": True,
        },
        environ=lambda here: {
            "PARITY_ADDRESS": here.address,
            "AIRFLOW__RAY_JOBS__ALLOWED_MODULES": "parity_manager",
        },
    ),
    Case(
        "address_overridden",
        probe(),
        ends="ConnectionError",
        environ=lambda here: {"RAY_ADDRESS": _ELSEWHERE},
        hook_ends="SUCCEEDED",
    ),
]
