"""The training engine: trainer, schedule, checkpoints, logging."""
