"""Preprocessing: from the cases of a raw data set to a store that training reads in crops."""
