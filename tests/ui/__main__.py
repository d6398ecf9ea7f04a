"""`make ui`: starts Airflow and Ray to click through, prints their addresses, and stops them on Ctrl-C."""

from __future__ import annotations

import contextlib
import secrets
import signal
import tempfile
import time
from pathlib import Path

from tests.support import environment
from tests.support.ray_head import RayHead
from tests.ui.stage import DAGS, EXAMPLES, LOGIN, make_airflow


def main() -> None:
    """Start everything, wait for Ctrl-C, and stop everything."""
    environment.clean()
    # Handle SIGTERM like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="airflow-ui-") as folder:
        home = Path(folder) / "home"
        airflow = make_airflow(home, (EXAMPLES, DAGS))
        with contextlib.suppress(KeyboardInterrupt):
            print("Starting Ray ...", flush=True)
            with RayHead(num_cpus=4, token=secrets.token_hex(32)) as ray:
                try:
                    print("Starting Airflow ...", flush=True)
                    airflow.start()
                    airflow.add_connection("ray_default", **ray.connection())
                    print(f"Ready after {time.monotonic() - began:.0f} s; press Ctrl-C to stop it.")
                    print(
                        f"  Airflow        {airflow.base_url}   user {LOGIN['username']}, password {LOGIN['password']}"
                    )
                    print(f"  Ray dashboard  {ray.url}   token {ray.token}", flush=True)
                    signal.pause()
                finally:
                    # A second Ctrl-C must not interrupt the clean-up.
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    print("\nStopping Airflow and Ray ...", flush=True)
                    airflow.stop()


if __name__ == "__main__":
    main()
