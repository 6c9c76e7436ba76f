"""Embeddings: the relevance of a token is that of its whole vector, R = Σ_d x_d·c_d, d over its dimensions.

Tokens are integers and have no values of their own, so relevance ends at the vectors that were looked up for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spray.engine.calls import Early
from spray.engine.trace import Call, Handler, Origin


def embedding(call: Call) -> Tensor:
    """F.embedding and nn.Embedding: its vectors are where the relevance of the tokens is read off."""
    trace = call.trace
    tokens = call.args[0] if call.args else call.kwargs["input"]
    with torch.no_grad():
        vectors: Tensor = call.native()
    vectors = vectors.detach().requires_grad_()
    trace.embedded.append((tokens, vectors))
    call.origin = Origin(trace.token, early=Early(call.name + trace.place, carries=True))
    return vectors


HANDLERS: dict[str, Handler] = {"embedding": embedding}
