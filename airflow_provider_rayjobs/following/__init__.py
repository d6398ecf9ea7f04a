"""Follows jobs to their end: one on a worker, or thousands on one event loop."""
