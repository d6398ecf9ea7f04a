"""The plain data that a DAG author gives, and what triggers and XComs hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef, KubeRayCluster, head_url

SPEC = {"headGroupSpec": {}}


def test_all_arguments_are_templates() -> None:
    cluster = KubeRayCluster(SPEC)
    assert set(cluster.template_fields) == set(vars(cluster))


def test_the_same_cluster_has_the_same_text() -> None:
    first, second = (KubeRayCluster(dict(SPEC), labels={"a": "b"}) for _ in range(2))
    assert repr(first) == repr(second)
    assert "0x" not in repr(first)


@pytest.mark.parametrize(
    ("spec", "file"),
    [("a.yaml", "a.yaml"), (Path("/x/b.yml"), "/x/b.yml"), ("a: b", ""), ("a: b\nc: d.yaml", ""), (SPEC, "")],
)
def test_a_path_is_told_from_yaml(spec: Any, file: str) -> None:
    assert KubeRayCluster(spec).file == file


@pytest.mark.parametrize("access", ["service", "proxy", "https://rays/{namespace}/{cluster}", "{{ var.value.access }}"])
def test_ways_to_the_head(access: str) -> None:
    assert KubeRayCluster(SPEC, access=access).access == access


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"spec": {}}, "spec is empty"),
        ({"spec": 7}, "spec must be a dict, YAML, or the path of a YAML file, not int"),
        ({"spec": SPEC, "access": "ingress"}, "access must be 'service', 'proxy', or a URL"),
        ({"spec": SPEC, "access": "https://{name}"}, "{namespace}, {cluster}, {service} only"),
        ({"spec": SPEC, "access": "https://{cluster.real}"}, "only"),
        ({"spec": SPEC, "history_url": "javascript:{cluster}"}, "history_url must be a URL that begins with http"),
        ({"spec": SPEC, "history_url": "https://h/{node}"}, "history_url has the placeholder {node}"),
        ({"spec": SPEC, "history_url": None}, "history_url must be a string, not NoneType"),
        ({"spec": SPEC, "access": "https://user:pw@rays/{cluster}"}, "access must be a URL without a login"),
        ({"spec": SPEC, "access": "https://rays/{cluster}?token=s3cret"}, "without '[?]' or '#'"),
        ({"spec": SPEC, "access": "https://rays/{cluster}#s3cret"}, "without '[?]' or '#'"),
        ({"spec": SPEC, "access": None}, "access must be a string, not NoneType"),
    ],
)
def test_what_is_wrong_is_told_when_the_dag_is_parsed(arguments: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        KubeRayCluster(**arguments)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "https://h/{namespace}/{cluster}/{session}/{submission_id}", "{{ var.value.history }}/{session}"]
)
def test_history_servers(url: str) -> None:
    assert KubeRayCluster(SPEC, history_url=url).history_url == url


def test_the_url_of_a_head() -> None:
    template = "https://rays.example.com/{namespace}/{cluster}/{service}/"
    assert head_url(template, namespace="n", cluster="c", service="s") == "https://rays.example.com/n/c/s"


def test_a_reference_is_json() -> None:
    ref = ClusterRef("kube", "ray", "name", "uid-1", "proxy", "https://h/{cluster}", owned=True)
    assert ClusterRef.from_json(json.loads(json.dumps(ref.to_json()))) == ref
    assert str(ref) == "RayJob ray/name"


REF = ClusterRef("k", "n", "x", "u").to_json()


@pytest.mark.parametrize(
    "value", [None, "text", {}, {**REF, "uid": 7}, {**REF, "uid": ""}, {**REF, "name": ""}, {**REF, "namespace": ""}]
)
def test_anything_else_is_no_reference(value: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a KubeRayCluster, or the cluster of `with ray_cluster"):
        ClusterRef.from_json(value)


@pytest.mark.parametrize(
    "access", ["http://user:s3cret@rays/", "http://rays/?token=s3cret", "ftp://rays", "http://u:s3cret@{{ x }}/"]
)
def test_a_reference_from_anywhere_has_no_login_in_its_address(access: str) -> None:
    with pytest.raises(ValueError, match=r"access must be|access may have") as caught:
        ClusterRef.from_json({**REF, "access": access})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("as_text", [False, True])
def test_its_text_has_no_secret(as_text: bool) -> None:
    env = [{"name": "DB_PASSWORD", "value": "hunter-1"}, {"name": "LEVEL", "value": "debugging"}]
    head = {
        "rayStartParams": {"redis-password": "hunter-2", "num-cpus": "4"},
        "template": {"spec": {"containers": [{"env": env}]}},
    }
    spec = {"headGroupSpec": head, "gcsFaultToleranceOptions": {"redisPassword": {"value": "hunter-3"}}}
    text = repr(KubeRayCluster(json.dumps(spec) if as_text else spec))
    assert "hunter" not in text
    assert '"name": "DB_PASSWORD", "value": "***"' in text
    assert "debugging" in text
    assert '"num-cpus": "4"' in text


def test_text_that_is_no_yaml_yet_is_not_shown() -> None:
    texts = [f"a: {{{{ x }}}}\nenv: [{{name: DB_PASSWORD, value: hunter-{number}}}]" for number in (1, 1, 2)]
    first, same, other = (repr(KubeRayCluster(text)) for text in texts)
    assert "hunter" not in first
    assert first == same != other
    assert "not valid YAML" in repr(KubeRayCluster("a: &a [*a]"))
