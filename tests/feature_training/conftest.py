"""Fixtures of tests/tiny_model.py for this folder."""

from tiny_model import tiny, tiny_folders

__all__ = ["tiny", "tiny_folders"]
