"""What is made from a run's public facts, before anyone computes.

Models and shapes, the noise of each phase, how updates are summed, and the check of what
private training would read.
"""
