"""Command line of the benchmark: `python -m bench.kernels --help`."""

from bench.kernels.command import main

if __name__ == "__main__":
    main()
