"""Sums of integer vectors that nobody on the way can read: codec, masks, secret shares, encryption, keys."""
