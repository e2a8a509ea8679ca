"""One self-contained HTML page for one run, or several compared."""
