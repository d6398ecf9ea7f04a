"""Submissions without files that have an error."""

from __future__ import annotations

from typing import Any

from tests.parity.case import Case
from tests.parity.cases_job import command, probe

#: The hook's error for a wrong value in the connection, which is both a ValueError and a RuntimeError.
_CONFIG = "RuntimeError"


def wrong(name: str, ends: str, hook_ends: str = "", **arguments: Any) -> Case:
    """Return a case with wrong arguments."""
    return Case(f"wrong_{name}", probe(**arguments), ends, hook_ends=hook_ends)


def environment(name: str, ends: str, **runtime_env: Any) -> Case:
    """Return a case with a wrong runtime_env."""
    return wrong(name, ends, runtime_env=runtime_env)


def client(name: str, ends: str, hook_ends: str = "", **arguments: Any) -> Case:
    """Return a case with a wrong argument of the client."""
    return Case(f"wrong_client_{name}", probe(), ends, client=lambda here: arguments, hook_ends=hook_ends)


CASES = [
    Case("wrong_entrypoint_number", command(7), "TypeError"),
    Case("wrong_entrypoint_none", command(None), "TypeError"),
    Case("wrong_entrypoint_empty", command(""), hook_ends="ValueError"),
    wrong("submission_id_number", "TypeError", submission_id=7),
    wrong("submission_id_slash", "sent:RuntimeError", "ValueError", submission_id="a/b"),
    wrong("submission_id_taken", "sent:RuntimeError", submission_id="parity-taken"),
    wrong("metadata_number", "TypeError", metadata={"a": 7}),
    wrong("metadata_key", "TypeError", metadata={7: "a"}),
    wrong("metadata_list", "AttributeError", "TypeError", metadata=["a"]),
    wrong("num_cpus_text", "TypeError", entrypoint_num_cpus="1"),
    wrong("num_cpus_negative", "FAILED", "ValueError", entrypoint_num_cpus=-1),
    wrong("num_gpus_list", "TypeError", entrypoint_num_gpus=[1]),
    wrong("num_gpus_part", "FAILED", "ValueError", entrypoint_num_gpus=1.5),
    wrong("memory_float", "TypeError", entrypoint_memory=1.5),
    wrong("memory_negative", "FAILED", "ValueError", entrypoint_memory=-1),
    wrong("resources_list", "TypeError", entrypoint_resources=["a"]),
    wrong("resources_text", "TypeError", entrypoint_resources={"a": "1"}),
    wrong("resources_key", "TypeError", entrypoint_resources={7: 1}),
    wrong("resources_negative", "FAILED", "ValueError", entrypoint_resources={"parity_widget": -1}),
    wrong("resources_cpu", "FAILED", "ValueError", entrypoint_resources={"CPU": 1}),
    wrong("label_selector_list", "TypeError", entrypoint_label_selector=["a"]),
    wrong("label_selector_number", "TypeError", entrypoint_label_selector={"a": 7}),
    wrong("label_selector_syntax", "sent:RuntimeError", entrypoint_label_selector={"a": "!!b"}),
    wrong("runtime_env_list", "AttributeError", "TypeError", runtime_env=["a"]),
    wrong("runtime_env_key", "TypeError", runtime_env={7: "a"}),
    environment("env_vars_number", "TypeError", env_vars={"A": 7}),
    environment("env_vars_key", "TypeError", env_vars={7: "a"}),
    environment("env_vars_list", "TypeError", env_vars=["A"]),
    environment("excludes_text", "TypeError", excludes="*.log"),
    environment("excludes_number", "TypeError", excludes=[7]),
    environment("config_text", "TypeError", config="x"),
    environment("config_timeout_text", "TypeError", config={"setup_timeout_seconds": "9"}),
    environment("config_timeout_zero", "ValueError", config={"setup_timeout_seconds": 0}),
    environment("config_eager_text", "TypeError", config={"eager_install": "no"}),
    environment("config_log_files", "TypeError", config={"log_files": "x"}),
    environment("container_with_pip", "ValueError", container={"image": "x"}, pip=["emoji"]),
    environment("image_uri_with_pip", "ValueError", image_uri="x", pip=["emoji"]),
    environment("setup_hook_callable", "ValueError", worker_process_setup_hook=print),
    environment("plugin_object", "TypeError", parity_plugin=object()),
    client("address_nobody", "ConnectionError", address="http://127.0.0.1:9"),
    client("address_unknown_module", "RuntimeError", address="parity_no_such_module://inner"),
    client("headers_list", "TypeError", _CONFIG, headers=["a"]),
    client("cookies_text", "TypeError", _CONFIG, cookies="a=b"),
    client("metadata_text", "TypeError", _CONFIG, metadata="a=b"),
    client("verify_absent", "FileNotFoundError", _CONFIG, verify="/no/such/ca.pem"),
    client("verify_number", "TypeError", _CONFIG, verify=7),
    Case(
        "wrong_address_prefix",
        probe(),
        "RuntimeError",
        client=lambda here: {"address": f"{here.address}/no/prefix"},
        hook_ends="sent:RuntimeError",
    ),
]
