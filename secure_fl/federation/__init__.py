"""Messages, the client, the server's phases and checkpoints. Phases move no bytes: engines do."""
