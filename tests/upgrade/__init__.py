"""The upgrade of Airflow from one version to the next, with tasks that are deferred meanwhile."""

#: Begins the line in which a program of these tests, run by some Airflow, prints its result; Airflow may print others.
MARK = "RESULT "
