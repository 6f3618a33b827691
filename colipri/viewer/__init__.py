"""The page of ``colipri_view``: scans, scores, heat maps and similar cases in the browser."""
