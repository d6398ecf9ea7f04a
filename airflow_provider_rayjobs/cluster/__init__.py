"""Reads Airflow connections: the cluster's address, credentials, TLS and limits."""
