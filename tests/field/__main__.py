"""`make field KEEP=1`: starts the bench, and says where it is, until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path

from tests.field.bench import Bench
from tests.support import environment


def main() -> None:
    """Start everything, wait, and leave nothing behind."""
    environment.clean()
    # Ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="field-", dir=environment.SHORT_TMP) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL may run as another user
        with contextlib.suppress(KeyboardInterrupt):
            print("Starting PostgreSQL, Redis, Ray and Airflow ...", flush=True)
            with Bench(Path(folder)) as bench:
                print(f"Ready after {bench.seconds['ready']:.0f} s; Ctrl-C ends it.")
                print(f"  Airflow        {bench.airflow.base_url}")
                print(f"  Ray dashboard  {bench.ray.url}")
                print(f"  Files          {bench.folder}", flush=True)
                signal.pause()


if __name__ == "__main__":
    main()
