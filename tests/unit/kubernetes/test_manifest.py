"""From what a DAG author gives to the RayJob object."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_rayjobs.kubernetes import manifest

HEAD = {"headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": {}}}
YAML = """
headGroupSpec:
  rayStartParams: {num-cpus: "0"}
  template: {}
"""


def of_kind(kind: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    "given",
    [HEAD, YAML, f"---{YAML}", of_kind("RayCluster", HEAD), of_kind("RayJob", {"rayClusterSpec": HEAD})],
    ids=["dict", "YAML", "YAML document", "RayCluster", "RayJob"],
)
def test_each_form_gives_the_same_spec(given: Any) -> None:
    assert manifest.read_spec(given).spec == HEAD


def test_a_manifests_namespace_labels_and_queue_are_kept() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "training"}
    given = of_kind(
        "RayJob", {"rayClusterSpec": HEAD, "suspend": True, "managedBy": "x"}, namespace="ray", labels=labels
    )
    read = manifest.read_spec(given)
    assert (read.namespace, read.labels) == ("ray", labels)
    made = rayjob(read)
    assert (made["spec"]["suspend"], made["spec"]["managedBy"]) == (True, "x")
    assert made["metadata"]["labels"] == labels


def test_numbers_that_a_template_made_strings_are_numbers_again() -> None:
    group = {"replicas": "3", "minReplicas": " 1 ", "rayStartParams": {"num-cpus": "2"}}
    read = manifest.read_spec({**HEAD, "workerGroupSpecs": [group]})
    assert read.spec["workerGroupSpecs"] == [{"replicas": 3, "minReplicas": 1, "rayStartParams": {"num-cpus": "2"}}]
    assert group["replicas"] == "3"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (7, "must be a dict or YAML of one, not int"),
        ("a: [", "is not valid YAML"),
        ("", "must be YAML of one object, but it has 0"),
        (f"{YAML}---{YAML}", "must be YAML of one object, but it has 2"),
        ("text", "must be a dict or YAML of one, not str"),
        ({"workerGroupSpecs": []}, "has no headGroupSpec"),
        (of_kind("RayService", HEAD), "of kind 'RayService'; it must be a RayCluster or a RayJob"),
        ({**of_kind("RayCluster", HEAD), "apiVersion": "ray.io/v1alpha1"}, "it must be 'ray.io/v1'"),
        (of_kind("RayJob", {}), "rayClusterSpec of the manifest must be a dict, not None"),
        (of_kind("RayJob", {"rayClusterSpec": HEAD, "entrypoint": "x"}), "spec.entrypoint .* the task's entrypoint"),
        (of_kind("RayJob", {"rayClusterSpec": HEAD, "backoffLimit": 2}), "spec.backoffLimit .* the task's retries"),
        (of_kind("RayJob", {"clusterSelector": {"a": "b"}}), "clusterSelector .*ray_conn_id"),
        (of_kind("RayJob", {"rayClusterSpec": HEAD, "deletionStrategy": {}}), "spec.deletionStrategy .* is not used"),
        ({**HEAD, "authOptions": {"enableK8sTokenAuth": True}}, "KubeRay does not allow it in a RayJob"),
        (of_kind("RayCluster", HEAD, labels={"a": 1}), r"metadata.labels\['a'\] must be a string, not int"),
    ],
)
def test_what_kuberay_would_refuse_is_told_before(given: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        manifest.read_spec(given)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([], "labels must be a dict, not list"),
        ({"a b": "x"}, "'a b' is not a valid name"),
        ({"a": "x" * 64}, "at most 63 letters"),
        ({"a": "-x"}, "begin and end with a letter"),
        ({manifest.PREFIX + "task": "x"}, "are reserved for the provider"),
    ],
)
def test_labels_are_checked(pairs: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        manifest.checked_pairs("labels", pairs)


def test_annotations_may_have_any_text() -> None:
    pairs = {"example.com/note": "any text: {}\n" * 50}
    assert manifest.checked_pairs("annotations", pairs) == pairs
    assert manifest.checked_pairs("annotations", None) == {}


@pytest.mark.parametrize(
    ("dag", "task"),
    [("etl", "train"), ("9 lives", "x"), ("Äther", "groß"), ("---", "..."), ("d" * 300, "t.g." * 60), ("", "")],
)
def test_a_name_is_a_dns_label_that_kuberay_accepts(dag: str, task: str) -> None:
    digest = "0123456789abcdef0123"
    name = manifest.object_name(dag, task, digest)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert "--" not in name
    assert len(name) <= 47
    assert name.endswith(f"-{digest}")


def rayjob(cluster: manifest.ClusterSpec, **options: Any) -> dict[str, Any]:
    names = {"name": "n", "namespace": "ray", "labels": {}, "annotations": {}}
    return manifest.rayjob(cluster, **{**names, "deadline": 90, "lifetime": 3000.5, **options})


def test_the_object_makes_a_cluster_that_ends_by_itself() -> None:
    spec = rayjob(manifest.ClusterSpec(HEAD))["spec"]
    assert "jobId" not in spec, "KubeRay would take the cluster for used, and wait for this job for ever"
    assert spec == {
        "submissionMode": "InteractiveMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 0,
        "preRunningDeadlineSeconds": 90,
        "activeDeadlineSeconds": 3001,
        "rayClusterSpec": HEAD,
    }


def test_a_limit_of_the_job_bounds_the_whole_object() -> None:
    spec = rayjob(manifest.ClusterSpec(HEAD), job_timeout=100.5)["spec"]
    assert spec["activeDeadlineSeconds"] > 90 + 100.5


@pytest.mark.parametrize(("start_timeout", "deadline"), [(10, 610), (2000, 3000), (0.1, 601)])
def test_the_deadline_leaves_time_for_the_submission(start_timeout: float, deadline: int) -> None:
    assert manifest.pre_running_deadline(start_timeout) == deadline
