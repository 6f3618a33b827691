"""Features of whole data sets on disk, computed once and read by everything that learns on them."""
