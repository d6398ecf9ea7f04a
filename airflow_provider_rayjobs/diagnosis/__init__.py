"""Explains what a job does that does not do what its author expects."""
