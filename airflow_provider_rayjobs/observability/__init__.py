"""What the provider tells of jobs to other systems: lineage, metrics, traces."""
