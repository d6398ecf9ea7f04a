"""`make field KEEP=1`: starts the bench and prints its addresses; stops it on Ctrl-C."""

from __future__ import annotations

import contextlib
import signal

from tests.field.bench import Bench, new_folder
from tests.support import environment


def main() -> None:
    """Start everything, wait for Ctrl-C, and stop everything."""
    environment.clean()
    # Handle SIGTERM like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Starting PostgreSQL, Redis, Ray and Airflow ...", flush=True)
    with contextlib.suppress(KeyboardInterrupt), new_folder() as folder, Bench(folder) as bench:
        print(f"Ready after {bench.seconds:.0f} s; press Ctrl-C to stop it.")
        print(f"  Airflow        {bench.airflow.base_url}")
        print(f"  Ray dashboard  {bench.ray.url}")
        print(f"  Files          {bench.folder}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
