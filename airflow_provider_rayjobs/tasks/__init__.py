"""The task side of a job: one Ray job per try of a task, and no job that outlives its task."""
