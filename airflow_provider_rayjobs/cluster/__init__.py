"""Which cluster a connection names, and the credentials that it needs."""
