"""How fast the kernels are and how much memory they take, against plain torch and other
people's programs.

    python -m bench.kernels all                        # everything, small sizes: about ten
                                                       # minutes on two processors
    python -m bench.kernels ntxent --rows 8192 --dimension 128 --threads 1
    python -m bench.kernels bar                        # the targets, each with its figure

One file a kernel; `measure` times, `memory` weighs, `peers` finds other people's
programs, `run` measures one size, `agenda` walks them, `bar` compares with the targets,
`compare` sets two files side by side, `plots`, `html` and `page` show the rows of
`bench/results/kernels.csv`.
"""
