"""What a trace knows of tensors and operations: where a tensor comes from, and how an operation was called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from spray.engine.calls import Early, LayerCall
from spray.engine.errors import UnsupportedOperation
from spray.engine.functions import map_tensors

if TYPE_CHECKING:
    from spray.engine.trace import Trace

Handler = Callable[["Call"], Any]

MEETING = (
    "values of several samples meet in it, so that the map of one would depend on the others. Work within samples, "
    "which lie along the first dimension (x.mean((1, 2, 3)) instead of x.mean())."
)
"""Why an operation that mixes samples is refused, or one that uses what such an operation returned."""


@dataclass(eq=False)
class Origin:
    """What a trace knows about a tensor it has seen."""

    trace: object
    """The trace's token, not the trace: a tensor that held its trace would be freed by the cycle collector only."""
    call: LayerCall | None = None
    early: Early | None = None
    folded: bool = False
    """Whether it is the output of a normalisation folded into ``call``, not that of the layer itself."""
    gate: str | None = None
    tokens: Tensor | None = None
    """Of integers taken from the model's input, which an embedding will look up: which of the input's each is."""
    nonnegative: bool = False
    """Whether its values are known to be ≥ 0, by the operations that made it."""
    replaced: Tensor | None = None
    axis: int | None = 0
    """The dimension along which the samples are, None where it cannot be told."""
    overwritten: bool = False
    """Whether an in-place operation has changed the memory it shares with its views."""
    copy_of: Origin | None = None
    """That of which it may be a view as the model lays values out; as the engine does it is a copy."""


@dataclass
class Call:
    """One operation of the model: its name, its arguments, and those of them that depend on the input."""

    trace: Trace
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tracked: list[Tensor]
    carries: Literal["no", "natively", "elementwise"] = "no"
    keeps_sign: bool = False
    in_place: bool = False
    """Whether the model asked for it in place; handlers may work out of place, later uses are led to the result."""
    origin: Origin | None = field(default=None)
    axis: int | None = 0
    """The dimension of the samples in what is given, and then in what is returned."""

    def samples_first(self, values: Tensor) -> Tensor:
        """Values shaped like the result, once there is one, with their samples along the first dimension."""
        self.need_samples(first=False)
        return values.movedim(self.axis, 0) if self.axis else values

    def need_samples(self, *, first: bool) -> None:
        """Refuse values whose samples cannot be told apart, or are not along the first dimension where they must be."""
        known = self.axis == 0 if first else self.axis is not None
        if not known and self.trace.ledger.samples > 1:
            if self.axis is None and self.trace.met:
                raise UnsupportedOperation(f"{self.trace.met[-1]}: {MEETING}")
            where = "cannot be told" if self.axis is None else f"is {self.axis}"
            raise self.refuse(
                f"the dimension of the samples in its input {where}, but what is absorbed is booked sample by sample. "
                "Keep samples along the first dimension (batch_first=True, x.transpose(0, 1) before), or explain one "
                "sample at a time."
            )

    def native(self) -> Any:
        """Run the operation itself, out of place, recorded by autograd, parameters held constant."""
        args, kwargs = map_tensors(frozen, (self.args, self.kwargs))
        return self.function(*args, **kwargs)

    def refuse(self, reason: str) -> UnsupportedOperation:
        """The error that names this operation, where it was met, why it is refused, and the way out."""
        return UnsupportedOperation(f"{self.name}{self.trace.place}: {reason}")


def frozen(tensor: Tensor) -> Tensor:
    """Parameters are constants of the explanation: no gradient is computed for them."""
    known = "_spray_origin" in tensor.__dict__
    return tensor.detach() if tensor.requires_grad and tensor.is_leaf and not known else tensor


def mark(tensor: Tensor, origin: Origin) -> None:
    """Let a tensor tell its origin to the trace that follows it."""
    tensor.__dict__["_spray_origin"] = origin
