"""What all converters share: checking, naming, writing, resuming and reporting cases."""
