"""What Flower starts: a few lines at the server, and a few at each site."""
