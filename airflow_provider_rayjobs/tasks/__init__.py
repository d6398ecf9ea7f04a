"""One Ray job for each try of a task, and no job without a task."""
