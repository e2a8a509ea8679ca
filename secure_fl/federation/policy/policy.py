"""A site's policy: what its owner accepts of a plan, checked by the site's own process.

The file belongs to the site. The coordinator's plan is held against it before the site joins, and
whatever is weaker than the policy in any one respect is refused by name. A setting that is left
out has its default; one that is "any" (None) is not checked, and `Policy.unchecked` names it.

**Guarantee**: `Policy.check` returns no objection only if every setting of the policy that is not
None is met by the terms; a figure that cannot be known counts as not met.

**Assumes**: the terms were made by `PlanTerms.of` on this site, and its clock is right to the day.

**Not covered**: whether the code keeps to the plan (the digests say which code); parties that lie
within what the plan allows.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from secure_fl.config import Section
from secure_fl.config_file import commented, read_table
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import ConfigError
from secure_fl.federation.policy.rules import Judgement, Objection, judgements
from secure_fl.federation.policy.terms import PlanTerms
from secure_fl.paths import path_of

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Day = Annotated[datetime.date, Field(strict=True)]

ANY = "any"
"""A setting that is not checked, in the file."""
_WIDTH = 100
_UNSET = re.compile(r"# (\w+) =")
_HEADER = """\
# What this site accepts of a federation's plan. The file is the site's own: its process holds
# every plan against it before it joins, and `secure-fl policy check PLAN` shows how. A plan that is
# weaker in one respect is refused; it may always be stricter. Every setting is shown with its
# default, which also holds where the setting is left out. "any" says that it is not checked.
"""


class _Limits(Section):
    """One table of a policy's file."""

    @model_validator(mode="before")
    @classmethod
    def _any_is_none(cls, table: Any) -> Any:
        """Read the word "any" as no limit, since TOML has no null."""
        if not isinstance(table, dict):
            return table
        return {name: None if value == ANY else value for name, value in table.items()}


class PrivacyLimits(_Limits):
    """Differential privacy: how much all that leaves may tell of an example, or of this site."""

    table = "privacy"
    unit: tuple[Literal["none", "example", "client"], ...] = Field(
        ("example", "client"),
        min_length=1,
        description="whose presence must be hidden: example (each of this site's) | client (this "
        "site among the others) | none (nobody's; epsilon must then be 'any': nothing bounds it)",
    )
    adjacency: tuple[Literal["zero-out", "replace-one"], ...] = Field(
        ("zero-out", "replace-one"),
        min_length=1,
        description="what neighbours may differ by: zero-out (how many examples there are is "
        "public) | replace-one",
    )
    epsilon: float | None = Field(
        8.0,
        gt=0,
        description="largest ε of the whole plan: of its budget, and of what its noise would spend "
        "by this site's own accountant. The default is a run's; 1 to 3 hide far more",
    )
    delta: float | None = Field(
        1e-5,
        gt=0,
        lt=0.1,
        description="largest δ: keep it below one over the number of this site's examples",
    )
    sketch_epsilon: float | None = Field(
        1.0,
        gt=0,
        description="largest ε of the sketches alone, which leave once; protected plans noise them "
        "even where unit = none",
    )
    noise: float | None = Field(
        None,
        gt=0,
        description="least noise multiplier of training. ε counts it already: set this to refuse "
        "little noise over few steps",
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="largest norm of what is noised, a gradient or a whole update. Noise grows "
        "with it, so ε does not depend on it",
    )
    colluders: int | None = Field(
        1,
        ge=1,
        description="client level, view moments: least number of clients that may withhold their "
        "noise, or take it off again, without weakening ε",
    )
    metrics: bool | None = Field(
        False,
        description="whether measures of the models on this site's examples may be made for "
        "others: each says something of the examples",
    )


class SumLimits(_Limits):
    """The secure sum: who could read this site's single update, and how many a sum is over."""

    table = "sums"
    protection: tuple[Literal["bfv+masked", "masked", "plain"], ...] = Field(
        ("bfv+masked", "masked"),
        min_length=1,
        description="layers of the sum: bfv+masked | masked | plain (everybody on the way reads "
        "the update)",
    )
    key_holder: tuple[Literal["clients", "authority"], ...] = Field(
        ("clients",),
        min_length=1,
        description="who may decrypt sums, where they are encrypted: clients | authority (one more "
        "party to trust)",
    )
    publish_models: bool | None = Field(
        False, description="whether the server may be given the models, and so the opened sums"
    )
    cohort: int | None = Field(
        3, ge=3, description="fewest clients that a sum is over; of two, each reads the other"
    )
    survivors: int | None = Field(
        3, ge=3, description="fewest clients that must still be there when a sum is opened"
    )
    pool: int | None = Field(
        3,
        ge=3,
        description="fewest clients of a pool that is opened; m - 1 who collude read the last of m",
    )
    threshold: int | None = Field(
        3,
        ge=2,
        description="least t: so many clients must collude with a server that follows the protocol "
        "to open one update",
    )
    against_a_liar: int | None = Field(
        2,
        ge=1,
        description="least 2t - m: so many must collude with a server that lies, by showing two "
        "survivor sets to two halves of the m who hold shares",
    )
    clamp: float | None = Field(
        None,
        gt=0,
        description="largest change of one parameter that this site may make in a round",
    )


class StudyLimits(_Limits):
    """The study: when, among whom, with which code, and for how long."""

    table = "study"
    begin: Day | None = Field(
        None, description="first day on which this site takes part: begin = 2026-01-31, unquoted"
    )
    end: Day | None = Field(None, description="last day, such as that of an approval")
    rounds: int | None = Field(1000, ge=1, description="most rounds of training")
    releases: int | None = Field(
        1000,
        ge=1,
        description="most times that something of this site's examples leaves it: updates, "
        "sketches, choices",
    )
    roster_revision: int | None = Field(None, ge=1, description="oldest revision of the roster")
    roster_digest: Digest | None = Field(
        None, description="the one roster that is accepted, by its digest: `secure-fl keys show`"
    )
    plans: tuple[Digest, ...] | None = Field(
        None, min_length=1, description="the only plans that are accepted, by digest, once read"
    )
    versions: tuple[str, ...] | None = Field(
        None, min_length=1, description="versions of this software that may run here"
    )
    code: tuple[Digest, ...] | None = Field(
        None,
        min_length=1,
        description="sources of this software that may run here, by digest, once read: `secure-fl "
        "policy check` shows it",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begin is not None and self.end is not None and self.end < self.begin:
            remedy, found = f"a day from {self.begin.isoformat()} on", self.end.isoformat()
            raise ConfigError("before study.begin", "study.end", found, remedy)
        return self


class Policy(Section):
    """What a site accepts; `Policy()` asks for differential privacy and a protected sum.

    Raises:
        ConfigError: naming the setting, its value and the remedy.
    """

    privacy: PrivacyLimits = PrivacyLimits()
    sums: SumLimits = SumLimits()
    study: StudyLimits = StudyLimits()

    @classmethod
    def load(cls, path: Path | str) -> Policy:
        """Read a policy from its TOML file. Raises ConfigError, naming what is refused."""
        return cls(**read_table(path_of(path, "policy"), "policy", "secure-fl policy init"))

    @property
    def digest(self) -> bytes:
        """32 bytes over all settings, set or not: what a transcript names the policy by."""
        settings = canonical(self.model_dump(mode="json"))
        return hashlib.sha256(b"secure-fl policy 1|" + settings).digest()

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Settings that are not checked: nothing is refused for them."""
        return tuple(name for name, limit in self._limits().items() if limit is None)

    @property
    def accounted(self) -> frozenset[str]:
        """Which of `epsilon` and `noise` this policy needs an accountant for."""
        limits = {"epsilon": self.privacy.epsilon, "noise": self.privacy.noise}
        return frozenset(name for name, limit in limits.items() if limit is not None)

    def check(self, terms: PlanTerms, today: datetime.date) -> list[Objection]:
        """Hold a plan against this policy.

        Args:
            terms: of the plan, made by this site.
            today: by this site's clock.

        Returns:
            An objection for each respect in which the plan is weaker; none where it is accepted.
        """
        judged = self.judge(terms, today)
        return [
            Objection(each.field, each.asked, each.allowed, each.reason)
            for each in judged
            if each.reason is not None
        ]

    def judge(self, terms: PlanTerms, today: datetime.date) -> Iterator[Judgement]:
        """Every setting that is checked beside what the plan asks for, met or not."""
        return judgements(self._limits(), terms, today)

    def _limits(self) -> dict[str, Any]:
        tables = {"privacy": self.privacy, "sums": self.sums, "study": self.study}
        return {f"{name}.{key}": value for name, table in tables.items() for key, value in table}


def default_policy() -> str:
    """A commented `policy.toml`: every setting at its default, and why. It loads to `Policy()`."""
    lines = [_HEADER, *map(_shown, commented(Policy()))]
    return "\n".join(lines).rstrip() + "\n"


def _shown(line: str) -> str:
    """A line of the file: what is not checked said plainly, a long reason wrapped."""
    if unset := _UNSET.fullmatch(line):
        return f'{unset[1]} = "{ANY}"'
    if line.startswith("# "):
        return textwrap.fill(line, _WIDTH, subsequent_indent="# ", break_on_hyphens=False)
    return line
