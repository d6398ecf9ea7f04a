"""The page "Ray jobs" in Airflow's UI."""
