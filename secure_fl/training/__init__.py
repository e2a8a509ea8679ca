"""What happens on one client: local training, scoring, and probes of a representation."""
