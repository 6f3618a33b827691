"""Indexes of scans on disk, and searching them by text or by image."""
