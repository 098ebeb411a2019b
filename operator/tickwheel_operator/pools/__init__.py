"""From a WorkerPool to its pods: what to make, what it may contain, how many, and which pod goes first."""
