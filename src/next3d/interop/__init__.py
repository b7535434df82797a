"""Other projects' files: released checkpoints."""
