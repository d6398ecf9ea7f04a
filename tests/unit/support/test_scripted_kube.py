"""The scripted API server does what its scripts say, and by default what an API server does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import requests

from tests.support import answers
from tests.support.scripted_kube import (
    RAYJOB,
    RAYJOBS,
    ScriptedKube,
    WatchEnd,
    etcd_times_out,
    refused,
    too_many,
)
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = "/apis/ray.io/v1/namespaces/default/rayjobs"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
def kube() -> Iterator[ScriptedKube]:
    with ScriptedKube() as server:
        yield server


def send(kube: ScriptedKube, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, kube.url + path, json=body, timeout=10, **options)


def job(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec}


def make(kube: ScriptedKube, name: str, **spec: Any) -> dict[str, Any]:
    response = send(kube, "POST", JOBS, job(name, **spec))
    assert response.status_code == 201
    return dict(response.json())


def watch(kube: ScriptedKube, version: str = "", seconds: float = 1, **query: str) -> list[dict[str, Any]]:
    params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds), **query}
    with requests.Session() as session:
        session.trust_env = False
        with session.get(kube.url + JOBS, params=params, stream=True, timeout=2) as response:
            return [json.loads(line) for line in response.iter_lines()]


def test_an_object_is_made_read_and_listed(kube: ScriptedKube) -> None:
    made = make(kube, "a", jobId="")
    assert made["metadata"].keys() >= {"uid", "resourceVersion", "creationTimestamp", "generation"}
    assert send(kube, "GET", f"{JOBS}/a").json() == made
    assert send(kube, "GET", JOBS).json()["items"] == [made]
    assert send(kube, "GET", "/apis/ray.io/v1/rayjobs").json()["items"] == [made]
    assert send(kube, "GET", "/apis/ray.io/v1/namespaces/other/rayjobs").json()["items"] == []
    response = send(kube, "GET", f"{JOBS}/b")
    assert (response.status_code, response.json()["reason"]) == (404, "NotFound")


def test_the_same_name_twice_is_409(kube: ScriptedKube) -> None:
    make(kube, "a")
    response = send(kube, "POST", JOBS, job("a"))
    assert (response.status_code, response.json()["reason"]) == (409, "AlreadyExists")


def test_a_status_is_set_by_the_controller_only(kube: ScriptedKube) -> None:
    response = send(kube, "POST", JOBS, job("a") | {"status": {"jobId": "x"}})
    assert "status" not in response.json()
    kube.set_status("a", jobDeploymentStatus="Waiting")
    send(kube, "PATCH", f"{JOBS}/a", {"spec": {"jobId": "x"}, "status": {"jobId": "y"}}, headers=MERGE)
    found = kube.find("rayjobs", "a")
    assert found is not None
    assert (found["spec"], found["status"]) == ({"jobId": "x"}, {"jobDeploymentStatus": "Waiting"})
    assert found["metadata"]["generation"] == 2


def test_a_merge_patch_removes_what_is_null(kube: ScriptedKube) -> None:
    make(kube, "a", jobId="x", entrypoint="y")
    patched = send(kube, "PATCH", f"{JOBS}/a", {"spec": {"jobId": None}}, headers=MERGE).json()
    assert patched["spec"] == {"entrypoint": "y"}
    assert send(kube, "PATCH", f"{JOBS}/a", []).status_code == 415


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
def test_a_patch_and_a_delete_may_demand_what_is_there(kube: ScriptedKube, field: str) -> None:
    meta = make(kube, "a")["metadata"]
    response = send(kube, "PATCH", f"{JOBS}/a", {"metadata": {field: "other"}}, headers=MERGE)
    assert (response.status_code, response.json()["reason"]) == (409, "Conflict")
    response = send(kube, "DELETE", f"{JOBS}/a", {"preconditions": {field: "other"}})
    assert (response.status_code, response.json()["reason"]) == (409, "Conflict")
    response = send(kube, "DELETE", f"{JOBS}/a", {"preconditions": {field: meta[field]}})
    assert (response.status_code, response.json()["details"]["uid"]) == (200, meta["uid"])
    assert kube.all("rayjobs") == []


def test_finalizers_hold_a_deleted_object(kube: ScriptedKube) -> None:
    make(kube, "a")
    kube.put("rayjobs", "default", {"metadata": {"name": "a", "finalizers": ["x"]}})
    assert "deletionTimestamp" in send(kube, "DELETE", f"{JOBS}/a").json()["metadata"]
    assert kube.find("rayjobs", "a") is not None
    send(kube, "PATCH", f"{JOBS}/a", {"metadata": {"finalizers": []}}, headers=MERGE)
    assert kube.find("rayjobs", "a") is None


def test_an_older_server_drops_a_field(kube: ScriptedKube) -> None:
    kube.unknown_fields = {"preRunningDeadlineSeconds"}
    assert make(kube, "a", preRunningDeadlineSeconds=5, jobId="x")["spec"] == {"jobId": "x"}


def test_selectors(kube: ScriptedKube) -> None:
    for name in ("a", "b"):
        kube.put("pods", "default", {"metadata": {"name": name, "labels": {"ray.io/cluster": name}}})
        event = {"metadata": {"name": f"{name}.1"}, "involvedObject": {"kind": "Pod", "name": name}}
        kube.put("events", "default", event)
    pods = send(kube, "GET", "/api/v1/namespaces/default/pods?labelSelector=ray.io/cluster%3Da").json()["items"]
    assert [one["metadata"]["name"] for one in pods] == ["a"]
    query = "fieldSelector=involvedObject.kind%3DPod,involvedObject.name%3Db"
    events = send(kube, "GET", f"/api/v1/namespaces/default/events?{query}").json()["items"]
    assert [one["metadata"]["name"] for one in events] == ["b.1"]


def test_a_token_is_demanded() -> None:
    with ScriptedKube(token="right") as kube:
        for path in (JOBS, f"{JOBS}?watch=true", "/api/v1/namespaces/default/services/x:8265/proxy/"):
            assert send(kube, "GET", path).status_code == 401
        assert send(kube, "GET", JOBS, headers={"Authorization": "Bearer right"}).status_code == 200


def test_a_lost_answer_to_a_create(kube: ScriptedKube) -> None:
    kube.script("POST", RAYJOBS, answers.lost())
    with pytest.raises(requests.ConnectionError):
        send(kube, "POST", JOBS, job("a"))
    assert kube.find("rayjobs", "a") is not None
    assert send(kube, "POST", JOBS, job("a")).status_code == 409


def test_a_create_that_never_arrived(kube: ScriptedKube) -> None:
    kube.script("POST", RAYJOBS, answers.drop())
    with pytest.raises(requests.ConnectionError):
        send(kube, "POST", JOBS, job("a"))
    assert kube.find("rayjobs", "a") is None


def test_an_error_after_the_deed(kube: ScriptedKube) -> None:
    kube.script("POST", RAYJOBS, etcd_times_out().but(applies=True))
    assert send(kube, "POST", JOBS, job("a")).status_code == 500
    assert kube.find("rayjobs", "a") is not None


@pytest.mark.parametrize("status", [403, 409, 410, 500, 503])
def test_an_error_in_between(kube: ScriptedKube, status: int) -> None:
    kube.script("GET", RAYJOB, refused(status))
    make(kube, "a")
    response = send(kube, "GET", f"{JOBS}/a")
    assert (response.status_code, response.json()["code"], response.json()["kind"]) == (status, status, "Status")
    assert send(kube, "GET", f"{JOBS}/a").status_code == 200


def test_too_many_requests_and_a_slow_answer(kube: ScriptedKube) -> None:
    kube.script("GET", RAYJOBS, too_many(3), answers.default(delay=0.5))
    response = send(kube, "GET", JOBS)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")
    begin = time.monotonic()
    assert send(kube, "GET", JOBS).status_code == 200
    assert time.monotonic() - begin >= 0.5


def test_a_watch_sends_what_changes(kube: ScriptedKube) -> None:
    make(kube, "a")
    version = send(kube, "GET", JOBS).json()["metadata"]["resourceVersion"]

    def change() -> None:
        kube.set_status("a", jobDeploymentStatus="Waiting")
        make(kube, "b")
        kube.remove("rayjobs", "a")

    with_delay = threading.Timer(0.2, change)
    with_delay.start()
    events = watch(kube, version)
    with_delay.join()
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in events] == [
        ("MODIFIED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]


def test_a_watch_without_a_version_begins_with_what_is_there(kube: ScriptedKube) -> None:
    make(kube, "a")
    make(kube, "b")
    kube.set_status("a", jobId="x")
    events = watch(kube)
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in events] == [("ADDED", "b"), ("MODIFIED", "a")]
    assert [one["object"]["metadata"]["name"] for one in watch(kube, fieldSelector="metadata.name=b")] == ["b"]


def test_a_watch_from_a_forgotten_version_is_410(kube: ScriptedKube) -> None:
    version = make(kube, "a")["metadata"]["resourceVersion"]
    kube.set_status("a", jobId="x")
    kube.forget_changes()
    (event,) = watch(kube, version)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_broken_watches(kube: ScriptedKube) -> None:
    make(kube, "a")
    kube.watches(
        WatchEnd(),
        WatchEnd(after=1),
        WatchEnd(error=410),
        WatchEnd(abort=True),
        WatchEnd(half_a_line=True),
        WatchEnd(hang=True),
    )
    assert watch(kube) == []
    assert len(watch(kube)) == 1
    assert watch(kube)[0]["object"]["code"] == 410
    for _ in range(2):
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            watch(kube)
    with pytest.raises(requests.ConnectionError, match="timed out"):
        watch(kube)
    assert len(watch(kube)) == 1


def test_the_proxy_of_a_service_leads_to_a_head(kube: ScriptedKube) -> None:
    path = "/api/v1/namespaces/default/services/x-head-svc:8265/proxy/api/jobs/"
    response = send(kube, "GET", path)
    assert (response.status_code, response.json()["reason"]) == (503, "ServiceUnavailable")
    with ScriptedRay(token="rays") as head:
        kube.heads["default", "x-head-svc"] = head.url
        headers = {"Authorization": "Bearer kubernetes", "X-Ray-Authorization": "Bearer rays"}
        submitted = send(kube, "POST", path, {"entrypoint": "true", "submission_id": "one"}, headers=headers)
        assert (submitted.status_code, list(head.jobs)) == (200, ["one"])
        assert head.received[0].headers.get("authorization") is None
    assert send(kube, "GET", path).status_code == 503


def test_the_proxy_carries_websockets(kube: ScriptedKube) -> None:
    async def read(url: str) -> list[str]:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as log:
            return [str(message.data) async for message in log if message.type is aiohttp.WSMsgType.TEXT]

    with ScriptedRay() as head:
        kube.heads["default", "x-head-svc"] = head.url
        head.add_job("one").log.extend(["a", "b"])
        head.set_status("one", "SUCCEEDED")
        path = "/api/v1/namespaces/default/services/x-head-svc:8265/proxy/api/jobs/one/logs/tail"
        assert asyncio.run(read(kube.url + path)) == ["a", "b"]


def test_an_unknown_path_is_a_page_that_is_not_found(kube: ScriptedKube) -> None:
    assert send(kube, "GET", "/apis/other.io/v1/things").status_code == 404
