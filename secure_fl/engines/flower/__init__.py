"""Flower as the engine: it enrols machines and launches apps; its messages can carry ours."""
