"""The methods the papers compare with, as settings laid over a configuration."""
