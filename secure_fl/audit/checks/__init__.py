"""Checks of what a run claims, a file each; `suite.catalogue` names them all."""
