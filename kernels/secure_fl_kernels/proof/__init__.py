"""Trust in the kernels without a GPU: they are interpreted under a guard, and compiled for every
target and read.

`interpreter` and `guard` run kernels on the processor; `binary`, `sass`, `loop` and `matrix`
compile what is shipped and judge the machine code; `roofline` says how fast they could be. `check`
puts it together for `secure-fl kernels check`. Nothing here is imported by the kernels themselves.
"""
