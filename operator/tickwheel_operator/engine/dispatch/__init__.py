"""From dispatches to workers and back: queues, leases, failures, and what waits. It may ask `schedule` of a task."""
