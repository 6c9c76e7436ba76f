"""Gates: sigmoid and its kin scale other values, so they are held constant and take no relevance.

What they return is a constant marked as a gate. It may multiply; where it stands as an activation of its own (its
value at 0 is not 0, so no share of it belongs to the input) the operation that meets it is refused by name.
"""

from __future__ import annotations

from torch import Tensor

from spray.engine.origins import Call, Handler


def gate(call: Call) -> Tensor:
    """Hold the result constant."""
    return call.trace.gate(call.native(), call.name)


HANDLERS: dict[str, Handler] = dict.fromkeys(("sigmoid", "hardsigmoid", "expit", "special_expit"), gate)
