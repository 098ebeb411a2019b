"""What is durable, and what it is made of: tasks, runs, dispatches, the fold of the facts, and checkpoints."""
