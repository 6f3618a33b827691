"""Converters that turn other data into colipri's raw format, one module or package each.

Each command line `colipri_convert_dataset NAME --help` imports the module of one converter, so
such a module imports numpy, SimpleITK, pydicom, ... inside the methods that need them.
"""
