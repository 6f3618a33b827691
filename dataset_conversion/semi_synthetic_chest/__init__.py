"""Semi-synthetic chest CT: real scans, inserted findings, written reports."""
