"""Differences between Airflow's versions that ``common.compat`` does not cover."""
