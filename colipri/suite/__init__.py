"""Everything that can be measured of a model on a data set, in one go."""
