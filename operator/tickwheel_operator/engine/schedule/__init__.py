"""From tasks and time to runs: what is armed, what is fired or skipped, and which runs may be open at a time."""
