"""Ships a Python function to the cluster, and reads the value that it returns."""
