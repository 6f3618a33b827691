"""The raw format: reading, writing, collections, and the verification of a data set."""
