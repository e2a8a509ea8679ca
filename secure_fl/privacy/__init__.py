"""Mechanisms, their noise, what they cost, and the ledger of every release."""
