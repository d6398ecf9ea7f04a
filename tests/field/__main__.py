"""`make field KEEP=1`: starts the bench, and says where it is, until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal

from tests.field.bench import Bench, new_folder
from tests.support import environment


def main() -> None:
    """Start everything, wait, and leave nothing behind."""
    environment.clean()
    # Ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Starting PostgreSQL, Redis, Ray and Airflow ...", flush=True)
    with contextlib.suppress(KeyboardInterrupt), new_folder() as folder, Bench(folder) as bench:
        print(f"Ready after {bench.seconds:.0f} s; Ctrl-C ends it.")
        print(f"  Airflow        {bench.airflow.base_url}")
        print(f"  Ray dashboard  {bench.ray.url}")
        print(f"  Files          {bench.folder}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
