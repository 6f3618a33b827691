"""A model for other programs on this machine: inference by MONAI Label's HTTP interface."""
