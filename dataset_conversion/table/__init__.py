"""Tables that name an image per row."""
