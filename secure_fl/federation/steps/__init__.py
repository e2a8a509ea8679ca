"""The kinds of steps that a federation's program is made of, a file for each. `order` says which of
them a plan asks for.
"""
