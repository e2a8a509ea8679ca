"""The K models, choosing among them, starting them, watching them for collapse."""
