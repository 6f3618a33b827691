"""Verification of a raw data set: every check, the codes of its issues, and their output."""
