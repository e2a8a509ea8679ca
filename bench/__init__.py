"""Measurements: one harness, one file a claim. Results are CSV with machine, versions and commit
in `bench/results/`.
"""
