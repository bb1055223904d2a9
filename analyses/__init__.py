"""One file an analysis; each returns a result."""
