"""
Records what a real KubeRay does with a handful of RayJobs, for the tests' played one to be compared with.

    python tools/record_kuberay.py --namespace NAMESPACE --image rayproject/ray:2.52.0 --output kuberay-1.6.json

It needs the `kubernetes` client, a kubeconfig, and in the namespace the rights of `tests/kube/airflow_role.yaml`. It
makes RayJobs named `record-…`, one after the other, each with a cluster of one pod, and deletes them. It takes some
ten minutes. Put the file into `tests/kube/recordings/`: from then on `make kube` compares the played KubeRay with it.

The jobs are submitted through the API server's proxy. The recording has no addresses, no tokens and no names but those
of these RayJobs.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes import client, config, watch

from console import ToolError, run_main

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP, VERSION = "ray.io", "v1"
DASHBOARD_PORT = 8265

#: More than any node has.
TOO_MANY_CPUS = "1000"
NO_IMAGE = "registry.invalid/there-is-none:1"


@dataclass(frozen=True)
class Settings:
    """
    How to record.

    :param namespace: where the RayJobs are made.
    :param image: of the pods, with Ray inside.
    :param cpu: the CPU that a pod requests.
    :param memory: the memory that a pod requests.
    :param bring_up: the most seconds until a cluster is ready.
    :param deadline: seconds of the deadline of the bring-up, where it is to pass; more than a bring-up takes.
    :param hold: seconds in which nothing is to happen, where nothing is expected to.
    """

    namespace: str
    image: str
    cpu: str = "500m"
    memory: str = "2Gi"
    bring_up: float = 600.0
    deadline: int = 120
    hold: float = 15.0


@dataclass
class Run:
    """One RayJob while it is recorded, and what was seen of it."""

    api: client.ApiClient
    settings: Settings
    name: str
    states: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    _begin: float = field(default_factory=time.monotonic)
    _ended: threading.Event = field(default_factory=threading.Event)
    _watchers: list[threading.Thread] = field(default_factory=list)

    # What a scenario does

    def make(self, *, image: str = "", cpu: str = "", play: str = "", **spec: Any) -> None:
        """
        Make the RayJob, and begin to watch it.

        :param play: what the tests' played KubeRay is to play; a real one ignores it.
        """
        requests = {"cpu": cpu or self.settings.cpu, "memory": self.settings.memory}
        container = {
            "name": "ray-head",
            "image": image or self.settings.image,
            "resources": {"requests": requests},
        }
        head = {"rayStartParams": {}, "template": {"spec": {"containers": [container]}}}
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "RayJob",
            "metadata": {"name": self.name, "annotations": {"bench/play": play} if play else {}},
            "spec": {"submissionMode": "InteractiveMode", "rayClusterSpec": {"headGroupSpec": head}, **spec},
        }
        made = self._objects.create_namespaced_custom_object(*self._kind("rayjobs"), body)
        self.note("made")
        if dropped := sorted(spec.keys() - made["spec"].keys()):
            self.note(f"the API server dropped {', '.join(dropped)}")
        version = made["metadata"]["resourceVersion"]
        for kind, see in (("rayjobs", self._see_job), ("rayclusters", self._see_cluster)):
            watcher = threading.Thread(target=self._watch, args=(kind, version, see), daemon=True)
            watcher.start()
            self._watchers.append(watcher)

    def wait(self, state: str, timeout: float = 120.0) -> None:
        """Wait until the RayJob has been in a state.

        :raises TimeoutError: if it has not, in time.
        """
        self._until(lambda: any(one["state"] == state for one in self.states), timeout, f"no {state}")

    def wait_up(self) -> None:
        """Wait until the RayJob waits for a job."""
        self.wait("Waiting", self.settings.bring_up)

    def submit(self, entrypoint: str) -> str:
        """Submit a job to the head, through the proxy; return its id."""
        job_id = f"{self.name}-{secrets.token_hex(4)}"
        service = f"{self._cluster_name()}-head-svc:{DASHBOARD_PORT}"
        self.api.call_api(
            f"/api/v1/namespaces/{self.settings.namespace}/services/{service}/proxy/api/jobs/",
            "POST",
            header_params={"Content-Type": "application/json", "Accept": "*/*"},
            body={"entrypoint": entrypoint, "submission_id": job_id},
            auth_settings=["BearerToken"],
            _preload_content=False,
        )
        self.note("submitted")
        return job_id

    def tell(self, job_id: str) -> None:
        """Set `spec.jobId`."""
        body = {"spec": {"jobId": job_id}}
        self._objects.patch_namespaced_custom_object(*self._kind("rayjobs"), self.name, body)
        self.note("told the job")

    def hold(self) -> None:
        """Let some time pass."""
        time.sleep(self.settings.hold)
        self.note("held")

    def delete(self) -> None:
        """Delete the RayJob, and wait until it is gone."""
        try:
            self._objects.delete_namespaced_custom_object(*self._kind("rayjobs"), self.name)
        except client.ApiException as error:
            if error.status == 404:
                return  # it was never made, or was deleted before
            raise
        self.note("deleted")
        self._until(lambda: self._is_gone("rayjobs"), 120, "the RayJob is still there")
        self.note("RayJob gone")

    def wait_cluster_gone(self) -> None:
        """Wait until the RayJob has no RayCluster."""
        self._until(lambda: self._is_gone("rayclusters"), 120, "the RayCluster is still there")
        self.note("RayCluster gone")

    # What is seen

    def note(self, what: str) -> None:
        """Keep what was done or seen, with its time."""
        self.notes.append({"at": self._at(), "what": what})

    def recording(self) -> dict[str, Any]:
        """Return what was seen, and stop watching."""
        events = self._events()
        self._ended.set()
        return {"states": self.states, "conditions": self.conditions, "notes": self.notes, "events": events}

    def _at(self) -> float:
        return round(time.monotonic() - self._begin, 1)

    def _see_job(self, kind: str, job: dict[str, Any]) -> None:
        if job["metadata"]["name"] != self.name or kind == "DELETED":
            return
        status = job.get("status", {})
        seen = {
            "state": status.get("jobDeploymentStatus", ""),
            "reason": status.get("reason", ""),
            "jobStatus": status.get("jobStatus", ""),
            "message": status.get("message", ""),
            "has": sorted(name for name, value in status.items() if value),
        }
        last = {name: value for name, value in self.states[-1].items() if name != "at"} if self.states else None
        if seen != last:
            self.states.append({"at": self._at()} | seen)

    def _see_cluster(self, kind: str, cluster: dict[str, Any]) -> None:
        if not self._is_own(cluster) or kind == "DELETED":
            return
        known = {one["type"]: (one["status"], one["reason"]) for one in self.conditions}
        for one in cluster.get("status", {}).get("conditions", ()):
            if known.get(one["type"]) != (one["status"], one["reason"]):
                seen = {name: one.get(name, "") for name in ("type", "status", "reason", "message")}
                self.conditions.append({"at": self._at()} | seen)

    def _watch(self, kind: str, version: str, see: Callable[[str, dict[str, Any]], None]) -> None:
        while not self._ended.is_set():
            stream = watch.Watch().stream(
                self._objects.list_namespaced_custom_object,
                *self._kind(kind),
                resource_version=version,
                timeout_seconds=5,
            )
            try:
                for event in stream:
                    version = event["object"]["metadata"]["resourceVersion"]
                    see(event["type"], event["object"])
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                if not self._ended.is_set():
                    self.note(f"the watch of {kind} broke: {type(error).__name__}")
                time.sleep(1)

    def _events(self) -> list[dict[str, Any]]:
        """Return the events about the RayJob and what belongs to it; all these names begin with its own."""
        found = client.CoreV1Api(self.api).list_namespaced_event(self.settings.namespace).items
        own = [one for one in found if (one.involved_object.name or "").startswith(self.name)]
        return [
            {
                "about": one.involved_object.kind,
                "type": one.type,
                "reason": one.reason,
                "message": one.message,
                "by": one.reporting_component or (one.source.component if one.source else ""),
                "times": [name for name in ("event_time", "first_timestamp", "last_timestamp") if getattr(one, name)],
            }
            for one in own
        ]

    # Helpers

    @property
    def _objects(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)

    def _kind(self, plural: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.settings.namespace, plural

    def _is_own(self, cluster: dict[str, Any]) -> bool:
        return any(owner["name"] == self.name for owner in cluster["metadata"].get("ownerReferences", ()))

    def _cluster_name(self) -> str:
        job = self._objects.get_namespaced_custom_object(*self._kind("rayjobs"), self.name)
        return str(job["status"]["rayClusterName"])

    def _is_gone(self, kind: str) -> bool:
        items = self._objects.list_namespaced_custom_object(*self._kind(kind))["items"]
        return not any(one["metadata"]["name"] == self.name or self._is_own(one) for one in items)

    def _until(self, condition: Callable[[], bool], timeout: float, problem: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{problem} after {timeout:.0f} s")
            time.sleep(0.2)


SHUTS_DOWN: dict[str, Any] = {"shutdownAfterJobFinishes": True}


def _succeeds(run: Run) -> None:
    run.make(**SHUTS_DOWN)
    run.wait_up()
    run.tell(run.submit("sleep 2"))
    run.wait("Complete")
    run.wait_cluster_gone()


def _fails(run: Run) -> None:
    run.make(**SHUTS_DOWN)
    run.wait_up()
    run.tell(run.submit("exit 7"))
    run.wait("Failed")
    run.wait_cluster_gone()


def _nobody_submits(run: Run) -> None:
    run.make(preRunningDeadlineSeconds=run.settings.deadline, **SHUTS_DOWN)
    run.wait_up()
    run.wait("Failed", run.settings.deadline + 60)
    run.wait_cluster_gone()


def _job_that_is_nowhere(run: Run) -> None:
    run.make(jobId="nowhere", **SHUTS_DOWN)
    run.wait("Running", run.settings.bring_up)
    run.hold()


def _refused(run: Run) -> None:
    run.make(backoffLimit=1, **SHUTS_DOWN)
    run.wait("ValidationFailed")
    run.hold()


def _deleted_while_the_job_runs(run: Run) -> None:
    run.make()
    run.wait_up()
    run.tell(run.submit("sleep 600"))
    run.wait("Running")
    run.hold()
    run.delete()
    run.wait_cluster_gone()


def _deleted_while_it_waits(run: Run) -> None:
    run.make()
    run.wait_up()
    run.delete()
    run.wait_cluster_gone()


def _no_node_fits(run: Run) -> None:
    run.make(cpu=TOO_MANY_CPUS, play="unschedulable")
    run.wait("Initializing")
    run.hold()


def _no_image(run: Run) -> None:
    run.make(image=NO_IMAGE, play="ErrImagePull")
    run.wait("Initializing")
    run.hold()


SCENARIOS: dict[str, Callable[[Run], None]] = {
    "succeeds": _succeeds,
    "fails": _fails,
    "nobody submits": _nobody_submits,
    "a job that is nowhere": _job_that_is_nowhere,
    "refused": _refused,
    "deleted while the job runs": _deleted_while_the_job_runs,
    "deleted while it waits": _deleted_while_it_waits,
    "no node fits": _no_node_fits,
    "no image": _no_image,
}


def record(api: client.ApiClient, settings: Settings, name: str) -> dict[str, Any]:
    """
    Play one scenario; return what was seen.

    :param name: a key of :data:`SCENARIOS`.
    :raises ToolError: if the API server refuses a step. What does not come in time is noted only.
    """
    run = Run(api, settings, f"record-{secrets.token_hex(3)}")
    try:
        SCENARIOS[name](run)
    except TimeoutError as error:
        run.note(str(error))
    except client.ApiException as error:
        raise ToolError(f"{name}: the API server answered {error.status} {error.reason}: {error.body}") from error
    finally:
        recording = run.recording()
        run.delete()
    return recording


def steps(recording: dict[str, Any]) -> list[list[str]]:
    """Return the states of a recording with their reasons, each once: what two recordings are compared by."""
    found: list[list[str]] = []
    for one in recording["states"]:
        step = [one["state"], one["reason"]]
        if one["state"] and (not found or found[-1] != step):
            found.append(step)
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description="Record what a real KubeRay does with a handful of RayJobs.")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--image", required=True, help="an image with Ray")
    parser.add_argument("--output", required=True, type=Path, help="the file, such as kuberay-1.6.json")
    parser.add_argument("--kuberay", default="", help="its version, to be kept in the file")
    parser.add_argument("--context", help="of the kubeconfig; by default the current one")
    parser.add_argument("--cpu", default=Settings.cpu)
    parser.add_argument("--memory", default=Settings.memory)
    parser.add_argument("--deadline", type=int, default=Settings.deadline, help="seconds; more than a bring-up takes")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="record only this; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Record, and write the file."""
    options = parse(arguments)
    try:
        api = config.new_client_from_config(context=options.context)
    except config.ConfigException as error:
        raise ToolError(f"There is no usable kubeconfig: {error} Name one in KUBECONFIG.") from error
    settings = Settings(options.namespace, options.image, options.cpu, options.memory, deadline=options.deadline)
    scenarios: dict[str, Any] = {}
    for name in options.only or SCENARIOS:
        print(f"{name} ...", flush=True)
        scenarios[name] = record(api, settings, name)
        print("   ", " -> ".join(" ".join(filter(None, step)) for step in steps(scenarios[name])), flush=True)
    found = {
        "kuberay": options.kuberay,
        "kubernetes": client.VersionApi(api).get_code().git_version,
        "recorded": time.strftime("%Y-%m-%d", time.gmtime()),
        "scenarios": scenarios,
    }
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written to {options.output}. Put it into tests/kube/recordings/.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_main(main)
