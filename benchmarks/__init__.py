"""Benchmarks of the provider's speed and memory; each module can be run as a script."""
