"""Makes untrusted text safe to show and to store."""
