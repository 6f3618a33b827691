"""The training objectives: one file each, each returning (loss, terms)."""
