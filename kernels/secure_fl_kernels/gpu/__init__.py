"""Triton kernels. Each file holds the kernels of one function, their launcher on tensors, and
`variants`: what is shipped.

Importing a file of this folder imports triton; `dispatch` does so only when a tensor is on a GPU or
the interpreter is on.
"""
