"""Training on stored features: everything but the image encoder, with thousands of scans a step."""
