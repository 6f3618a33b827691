"""Is a finding found where it is: heat maps against masks, and tests that need no mask."""
