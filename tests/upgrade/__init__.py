"""Upgrades of Airflow from one version to the next, while tasks are deferred."""

#: Prefix of the line with the result of a program of these tests; Airflow may print other lines.
MARK = "RESULT "
