"""What carries requests to clients and replies back."""
