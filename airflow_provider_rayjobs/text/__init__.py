"""Makes text safe to show and to store."""
