"""The settings of the secure sum."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secure_fl.config.section import Section


class SecurityConfig(Section):
    """How clients' updates are summed so that nobody on the way reads one."""

    table = "security"
    protection: Literal["bfv+masked", "bfv", "masked", "ckks", "plain"] = Field(
        "bfv+masked",
        description="bfv+masked | bfv | masked | ckks (approximate, for compatibility) | plain (the server reads everything)",
    )
    key_holder: Literal["clients", "authority"] = Field("clients", description="who can decrypt sums: clients (one key, sealed to each) | authority")
    rotation_rounds: int = Field(10, ge=1, description="rounds that one encryption key serves")
    min_pool_clients: int = Field(2, ge=1, description="a pool with fewer clients in a round is not opened and stays as it is")
    clamp: float = Field(1.0, gt=0, description="largest change of one parameter in a round; larger ones are cut (without client-level privacy)")
    robust: Literal["none", "median", "trimmed_mean"] = Field(
        "none",
        description="against clients that lie: none | median | trimmed_mean, coordinate by coordinate, of the means of groups that are summed apart",
    )
    group_size: int = Field(8, ge=2, description="robust: clients that a group has at least; sums over a group are opened, so fewer hide less")
    trim: int = Field(1, ge=1, description="trimmed_mean: groups left out at each end of every coordinate; as many may lie")
    neighbours: int | None = Field(None, ge=2, multiple_of=2, description="clients that a client shares masks with, an even number; unset: all")
