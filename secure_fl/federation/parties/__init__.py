"""The parties of a federation: clients, the server, and an authority where one holds the key."""
