"""Dev mode: a folder of manifests run with the real engine, a SQLite ledger and local worker processes."""
