"""Attention: softmax(QKᵀ)V, written out, fused, or as ``nn.MultiheadAttention``.

CP-LRP (Ali et al. 2022): the attention weights are held constant, so attention is linear in V; this conserves.
AttnLRP (Achtibat et al. 2024): the products are split, one half to V and one to the weights, and of the latter one
half each to Q and K; softmax takes its Taylor expansion, R_i = x_i (R_i^out − s_i Σ_j R_j^out), which in the form
c = R/x is autograd's gradient. Around the fused kernel this is the gradient to V × ½ and to Q and K × ¼ each, and ½ to
a mask made of the input; what is constant takes no part, so that learned queries leave K the ½.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spray.engine.operations.products import share
from spray.engine.origins import Call, Handler


def softmax(call: Call) -> Tensor:
    """Softmax: held constant as a gate, or followed as AttnLRP has it."""
    if call.trace.attention == "constant":
        return call.trace.gate(call.native(), call.name)
    out: Tensor = call.native()
    return out


def scaled_dot_product_attention(call: Call) -> Tensor:
    """The fused kernel, with what Q, K and V are given scaled outside it."""

    def bind(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("dropout_p", args[1] if len(args) > 1 else 0.0):
            raise call.refuse("attention dropout is active, so two passes differ. Call model.eval() first.")
        depends = call.trace.depends
        mask: Tensor | None = args[0] if args else kwargs.pop("attn_mask", None)
        rest = args[1:]
        if call.trace.attention == "constant":
            if not depends(value):
                raise call.refuse("its values do not depend on the input, so no relevance can pass them.")
            mask = None if mask is None else mask.detach()
            return F.scaled_dot_product_attention(query.detach(), key.detach(), value, mask, *rest, **kwargs)

        def part(x: Tensor, of: float, *others: Tensor | None) -> Tensor:
            """x with its part of a product's share: half if one of the others depends on the input, too, or all."""
            shared = 0.5 if any(map(depends, others)) else 1.0
            return share(x, of * shared) if depends(x) else x.detach()

        weights = 0.5 if depends(value) else 1.0
        value = part(value, 1.0, query, key, mask)
        query, key = part(query, weights, key), part(key, weights, query)
        mask = None if mask is None else part(mask, weights)
        return F.scaled_dot_product_attention(query, key, value, mask, *rest, **kwargs)

    return bind(*call.args, **call.kwargs)


def multi_head_attention(call: Call) -> tuple[Tensor, Tensor | None]:
    """``nn.MultiheadAttention``, taken apart into its projections and the attention between them.

    Those of queries, keys and values, whose weights are its own, are layers of its name; the last is its ``out_proj``.

    Raises:
        UnsupportedOperation: an option is used that its plain writing here does not have.
    """

    def bind(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None,
        static_k: Tensor | None = None,
        static_v: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        given = (bias_k, bias_v, key_padding_mask, static_k, static_v)
        if any(value is not None for value in given) or add_zero_attn or query.ndim != 3:
            raise call.refuse(
                "of nn.MultiheadAttention only batches without key padding, added keys and static keys have a rule. "
                "Write this layer with linear layers and scaled_dot_product_attention."
            )
        if training and dropout_p > 0:
            raise call.refuse("attention dropout is active, so two passes differ. Call model.eval() first.")
        packed = (
            (q_proj_weight, k_proj_weight, v_proj_weight)
            if in_proj_weight is None
            else in_proj_weight.chunk(3)
        )
        weights = [weight for weight in packed if weight is not None]
        biases = [None] * 3 if in_proj_bias is None else [*in_proj_bias.chunk(3)]
        inputs = (x.transpose(0, 1) for x in (query, key, value))  # samples first, as the books need them
        q, k, v = (
            F.linear(x, W, b).unflatten(-1, (num_heads, -1)).transpose(1, 2)
            for x, W, b in zip(inputs, weights, biases, strict=True)
        )
        mask = _additive(attn_mask, q)
        if mask is not None and mask.ndim == 3:  # one for each sample and head
            mask = mask.unflatten(0, (-1, num_heads))
        attention = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            attention = F.softmax(scores if mask is None else scores + mask, -1)
            out = attention @ v
            attention = attention.mean(1) if average_attn_weights else attention
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal and mask is None)
        with call.trace.inside("out_proj"):
            out = F.linear(out.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias)
        return out.transpose(0, 1), attention

    with call.trace:
        return bind(*call.args, **call.kwargs)


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask to be added to the scores; boolean ones of ``nn.MultiheadAttention`` say what to leave out."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("softmax", "_softmax"), softmax),
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention,
}
