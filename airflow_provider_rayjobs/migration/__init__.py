"""Rewrites DAG files that use another provider."""
