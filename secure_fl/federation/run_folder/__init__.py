"""A run's folder: what is in each of its files, and who may read which field."""
