"""Heads on a frozen encoder: how well its features tell findings, and classifiers made of them."""
