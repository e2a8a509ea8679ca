"""What clients hold: sources, partitions (how clients differ) and views (augmentation)."""
