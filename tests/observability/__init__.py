"""Tests of what a real Airflow sends about jobs: metrics to a StatsD server, traces to an OTLP collector."""
