"""Estimate pi: Ray tasks throw random points at a square and count those within the circle."""

import argparse
import random

import ray


@ray.remote
def count_hits(samples: int) -> int:
    """Return how many random points lie within the quarter circle."""
    return sum(random.random() ** 2 + random.random() ** 2 <= 1 for _ in range(samples))


def main() -> None:
    """Distribute the samples among the tasks, and print the estimate as it improves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=4_000_000)
    parser.add_argument("--tasks", type=int, default=8)
    arguments = parser.parse_args()

    share = arguments.samples // arguments.tasks
    pending = [count_hits.remote(share) for _ in range(arguments.tasks)]
    hits = 0
    for done in range(1, arguments.tasks + 1):
        [finished], pending = ray.wait(pending)
        hits += ray.get(finished)
        pi = 4 * hits / (done * share)
        print(f"task {done} of {arguments.tasks} done: pi is about {pi:.6f}", flush=True)


main()
