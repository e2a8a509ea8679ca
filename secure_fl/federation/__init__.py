"""Steps, clients and checkpoints of a federation. Steps move no bytes: engines do.

Public names, each imported when it is used:

- `BudgetGate`: The ledger of a run that releases anything with noise, its budget, and the file that
  survives a crash.
- `check_paths`: Refuse a run in which an example could move more than its own part of a release,
  before anything is released or charged.
- `Factory`: Makes what a run's parties compute with, from its public facts and the caller's own
  code.
- `Guide`: The found groups: the global mean sketch `[S]` and one centre a pool `[K, S]`.
- `Manifest`: The tags of one run's files.
- `Objection`: One respect in which a plan is weaker than the policy.
- `Place`: Where a program is.
- `PlanTerms`: One plan in numbers.
- `Policy`: What a site accepts; `Policy()` asks for differential privacy and a protected sum.
- `PoolScore`: The choice, the score of every pool on the client's own examples (none under
  privacy), and the chosen pool's test score.
- `PublicFacts`: What everybody in a federation knows of its run.
- `RoundRecord`: One round, as a line of `metrics.jsonl` holds it.
- `RunFolder`: Reads and writes one run's folder.
- `Secrecy`: What one adversary reads, and what it cannot read.
- `SketchForm`: Public facts of a federation's sketches.
- `State`: The models, and what else a program carries from round to round.
- `SumForm`: What everybody knows of one round's sum before anyone computes.
- `Transcript`: An append-only list of entries, in a file or in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.federation.asks import Guide as Guide
    from secure_fl.federation.asks import PoolScore as PoolScore
    from secure_fl.federation.factory.factory import Factory as Factory
    from secure_fl.federation.factory.path_check import check_paths as check_paths
    from secure_fl.federation.factory.sketch_form import SketchForm as SketchForm
    from secure_fl.federation.facts import PublicFacts as PublicFacts
    from secure_fl.federation.policy.policy import Policy as Policy
    from secure_fl.federation.policy.rules import Objection as Objection
    from secure_fl.federation.policy.terms import PlanTerms as PlanTerms
    from secure_fl.federation.program import SumForm as SumForm
    from secure_fl.federation.releases.budget import BudgetGate as BudgetGate
    from secure_fl.federation.run_folder.folder import RunFolder as RunFolder
    from secure_fl.federation.run_folder.manifest import Manifest as Manifest
    from secure_fl.federation.run_folder.metrics import RoundRecord as RoundRecord
    from secure_fl.federation.run_folder.secrecy import Secrecy as Secrecy
    from secure_fl.federation.state import Place as Place
    from secure_fl.federation.state import State as State
    from secure_fl.federation.transcript.chain import Transcript as Transcript

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "asks": ["Guide", "PoolScore"],
        "factory.factory": ["Factory"],
        "releases.budget": ["BudgetGate"],
        "facts": ["PublicFacts"],
        "run_folder.folder": ["RunFolder"],
        "run_folder.manifest": ["Manifest"],
        "factory.path_check": ["check_paths"],
        "policy.terms": ["PlanTerms"],
        "policy.policy": ["Policy"],
        "policy.rules": ["Objection"],
        "run_folder.secrecy": ["Secrecy"],
        "factory.sketch_form": ["SketchForm"],
        "transcript.chain": ["Transcript"],
        "program": ["SumForm"],
        "run_folder.metrics": ["RoundRecord"],
        "state": ["Place", "State"],
    },
)
