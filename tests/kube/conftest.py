"""An API server, a KubeRay and an Airflow's access to them. See `tests/kube/bench.py` for what these can do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kube.bench import Kube
from tests.kube.controller import KubeRay
from tests.kube.heads import OwnHeads, SharedHeads
from tests.kube.network import Ingress, PodNetwork
from tests.kube.server import KubeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kube.bench import Access
    from tests.kube.heads import Heads
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent

#: Only the environments of `make kube` have the Kubernetes client.
collect_ignore_glob = [] if importlib.util.find_spec("kubernetes") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kube)


@pytest.fixture(scope="session")
def pod_network() -> Iterator[PodNetwork]:
    with PodNetwork() as network:
        yield network


@pytest.fixture
def ingress(pod_network: PodNetwork) -> Iterator[Ingress]:
    """A way to all heads without the API server."""
    with Ingress(pod_network) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def kube(pod_network: PodNetwork) -> Iterator[Kube]:
    """A real API server that all tests share; each test has a namespace of its own."""
    with KubeServer(pod_network.socket) as server:
        kube = Kube(server)
        yield kube
        kube.api.close()


@pytest.fixture
def new_access(kube: Kube) -> Iterator[Callable[..., Access]]:
    """A function that makes a namespace with a service account, see :meth:`tests.kube.bench.Kube.new_access`."""
    made: list[Access] = []

    def make(*arguments: Path) -> Access:
        made.append(kube.new_access(*arguments))
        return made[-1]

    yield make
    for one in made:
        kube.clear(one.namespace)
        one.api.close()


@pytest.fixture
def access(new_access: Callable[..., Access]) -> Access:
    """A new namespace, with the service account of an Airflow."""
    return new_access()


@pytest.fixture
def kube_conn_id(access: Access, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an Airflow connection to the namespace, in an environment variable."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBE_BENCH", json.dumps(access.connection()))
    return "kube_bench"


@pytest.fixture
def new_kuberay(kube: Kube, pod_network: PodNetwork) -> Iterator[Callable[..., KubeRay]]:
    """A function that starts a KubeRay, for the heads that it is given; only one at a time."""
    running: list[KubeRay] = []

    def start(heads: Heads, **options: float) -> KubeRay:
        assert not running, "only one KubeRay can care for the objects"
        running.append(KubeRay(kube.server.api(), pod_network, heads, **options))
        return running[0].__enter__()

    yield start
    for one in running:
        one.__exit__()
        assert not one.troubles, "\n".join(one.troubles)


@pytest.fixture
def kuberay(new_kuberay: Callable[..., KubeRay]) -> KubeRay:
    """A KubeRay that starts a real Ray head for each RayCluster, at most two at a time."""
    return new_kuberay(OwnHeads())


@pytest.fixture
def cheap_kuberay(new_kuberay: Callable[..., KubeRay], ray_head: RayHead) -> KubeRay:
    """A KubeRay whose RayClusters all share one real Ray head."""
    return new_kuberay(SharedHeads(ray_head))
