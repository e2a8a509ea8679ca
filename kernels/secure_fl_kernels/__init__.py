"""Losses of secure_fl on plain tensors. Imports torch only and raises ValueError and TypeError.

`reference` holds them in plain torch: the definition every faster implementation is measured
against. `functional` has the same functions as operators, and `dispatch` says who computes them.
`cpu` never holds a matrix of similarities.
"""
