"""One self-contained HTML page for one run, or several compared.

Public names, each imported when it is used:

- `accuracy_plot`: Mean test accuracy over clients after each round, one line a run.
- `embedding_plot`: Test examples on the two principal axes of their unit features, before and
  after pre-training.
- `loss_plot`: The pre-training loss and its terms, unweighted, after each round.
- `occupancy_plot`: Clients in each pool, round by round, stacked.
- `partition_plot`: Training examples of each label at each client.
- `Run`: One run as the page needs it; None where the record leaves the experimenter's files out.
- `save_comparison`: Accuracy and occupancy of several runs, `(name, pools)`, as one picture; the
  suffix names the format.
- `spent_plot`: ε spent after each round of the run, all phases in order, and the budget.
- `compare`: Hold runs against each other: what pre-training, pools and privacy are worth.
- `read_runs`: Finished runs by their folders, as `compare` and the pages take them.
- `PrivacyCard`: A run's claims and what stands behind them, on one sheet.
- `write_card`: Write a run's card as JSON and as a page.
- `write_comparison`: Write a comparison as a page.
- `write_report`: Write the page for one run, or for several side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.report.card import PrivacyCard as PrivacyCard
    from secure_fl.report.card import write_card as write_card
    from secure_fl.report.compare_page import write_comparison as write_comparison
    from secure_fl.report.comparison import compare as compare
    from secure_fl.report.page import write_report as write_report
    from secure_fl.report.plots import accuracy_plot as accuracy_plot
    from secure_fl.report.plots import embedding_plot as embedding_plot
    from secure_fl.report.plots import loss_plot as loss_plot
    from secure_fl.report.plots import occupancy_plot as occupancy_plot
    from secure_fl.report.plots import partition_plot as partition_plot
    from secure_fl.report.plots import save_comparison as save_comparison
    from secure_fl.report.plots import spent_plot as spent_plot
    from secure_fl.report.runs import Run as Run
    from secure_fl.report.runs import read_runs as read_runs

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "card": ["PrivacyCard", "write_card"],
        "comparison": ["compare"],
        "compare_page": ["write_comparison"],
        "page": ["write_report"],
        "runs": ["Run", "read_runs"],
        "plots": [
            "accuracy_plot",
            "embedding_plot",
            "loss_plot",
            "occupancy_plot",
            "partition_plot",
            "save_comparison",
            "spent_plot",
        ],
    },
)
