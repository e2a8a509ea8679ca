"""Replies that will be summed, as blocks of integers: done at the client, where a secure sum or client-level privacy begins."""

from __future__ import annotations

import torch

from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import BlockUpdate, CentreShare, CentreVote, EncoderUpdate, PoolUpdate, Reply, SketchUpdate

FARTHEST = 4.0
"""Largest squared distance between means of unit vectors, which sketches are: votes carry it divided by this."""


def in_blocks(reply: Reply, blueprint: Blueprint) -> Reply:
    """The reply with everything that will be summed in `blocks`; as it is under `plain`, and for replies that are not summed."""
    if not blueprint.secure:
        return reply
    match reply:
        case EncoderUpdate() if blueprint.client_plan is None:
            grid, weight = blueprint.grid("pretrain"), _weight(reply.weight, blueprint)
            return BlockUpdate(grid.blocks(reply.delta, 0, weight), None, reply.terms, reply.exploded, grid.cut(weight * reply.delta))
        case PoolUpdate() if blueprint.client_plan is None:
            update, weight, grid = torch.cat([reply.shared, reply.pooled]), _weight(reply.weight, blueprint), blueprint.grid("cluster")
            blocks = grid.blocks(update, reply.score.choice, weight)
            return BlockUpdate(blocks, reply.score, reply.terms, reply.exploded, grid.cut(weight * update))
        case CentreShare(mean):
            return BlockUpdate(blueprint.grid("centre").blocks(mean.float(), 0))
        case SketchUpdate(sketch, square, count):
            return BlockUpdate(blueprint.grid("sketch").blocks(torch.cat([sketch, torch.tensor([square, float(count)])]), 0))
        case CentreVote(blocks):
            scaled = blocks.clone()
            scaled[..., -1] /= FARTHEST
            return BlockUpdate(blueprint.grid("votes").blocks(scaled.flatten(), 0))
        case _:
            return reply


def _weight(weight: float, blueprint: Blueprint) -> float:
    """Examples as a share of the largest client's, which is public; clients that count alike have weight 1, idle ones 0."""
    return min(1.0, weight / blueprint.largest) if weight > 1 else weight
