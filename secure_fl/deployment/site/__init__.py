"""A site's side of a federation: its folder, data and policy, and the process that has them."""
