"""Ray's Jobs API over HTTP, without Airflow and without ``ray``."""
