"""Converters that turn other data into colipri's raw format, one package or module each."""
