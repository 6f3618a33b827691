"""Fingerprint, memory model, planners and plans."""
