"""A whole audit: which checks, in which order, what they took, and what is written of them."""
