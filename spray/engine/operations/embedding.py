"""Embeddings: the relevance of a token is that of its whole vector, R = Σ_d x_d·c_d, d over its dimensions.

Tokens are integers and have no values of their own, so relevance ends at the vectors that were looked up for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spray.engine import tokens
from spray.engine.calls import Early
from spray.engine.errors import BadInput, few
from spray.engine.origins import Call, Handler, Origin


def embedding(call: Call) -> Tensor:
    """F.embedding and nn.Embedding: its vectors are where the relevance of the tokens is read off.

    Raises:
        BadInput: a token has no vector (``rows`` lists the samples).
    """
    trace, given = call.trace, call.args[0]
    places = trace.tokens(given)
    assert places is not None
    kinds = len(call.args[1] if len(call.args) > 1 else call.kwargs["weight"])
    outside = (given < 0) | (given >= kinds)
    if outside.any():
        rows = tuple(torch.unique(places[outside] // (trace.shape.numel() // trace.shape[0])).tolist())
        raise BadInput(
            f"token {int(given[outside][0])} has no vector{trace.place}, whose tokens are 0 to {kinds - 1} "
            f"({len(rows)} such samples, rows {few(rows)}). Are the inputs of another vocabulary?",
            rows,
        )
    with torch.no_grad():
        vectors: Tensor = call.native()
    vectors = vectors.detach().requires_grad_()
    trace.embedded.append((places, vectors))
    call.axis = tokens.samples(places, trace.ledger.samples, trace.shape)
    call.origin = Origin(trace.token, early=Early(call.name + trace.place, carries=True))
    return vectors


HANDLERS: dict[str, Handler] = {"embedding": embedding}
