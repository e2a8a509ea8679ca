"""What happened in a federation, as a chain of typed entries, and how a client follows it."""
