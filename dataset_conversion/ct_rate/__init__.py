"""CT-RATE, first and second release."""
