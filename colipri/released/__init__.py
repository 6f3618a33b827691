"""The names of the released package (colipri 0.1.x), with the same results."""
