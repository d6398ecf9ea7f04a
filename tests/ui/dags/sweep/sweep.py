"""Tries many parameters, each in a Ray task."""

import time

import ray


@ray.remote(num_cpus=0.5)
def load(part):
    return part


@ray.remote(num_cpus=0.5)
def evaluate(part, rate):
    time.sleep(0.5)
    return rate


ray.init(log_to_driver=False, logging_level="ERROR")
parts = ray.get([load.remote(number) for number in range(200)])
print("loaded 200 parts", flush=True)
rates = ray.get([evaluate.remote(part, 0.001 * number) for number in range(6) for part in parts])
print(f"the best rate is {max(rates):.3f}", flush=True)
