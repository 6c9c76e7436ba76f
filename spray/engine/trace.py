"""Following one forward pass of an unmodified model, operation by operation.

A ``Trace`` is a torch function mode: every torch function the model calls on a tensor that depends on the
input comes by, written as a module, a function, a method or an operator, and is handed to the handler of
its name. An operation without a handler is refused by name. Tensors that do not depend on the input are
constants. In-place operations return fresh tensors; later uses of the old one, a constant too, are led to the new
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from spray.engine import axes, tokens
from spray.engine.calls import Early, either
from spray.engine.errors import UnsupportedOperation
from spray.engine.functions import (
    CONSTANTS,
    METADATA,
    map_tensors,
    names,
    operation_name,
    out_of_place,
    overwrites,
    tensors_in,
)
from spray.engine.ledger import Ledger
from spray.engine.origins import MEETING, Call, Handler, Origin, frozen, mark
from spray.engine.weights import DerivedWeights

COPIES = names("view view_as reshape reshape_as flatten unflatten ravel contiguous to float double type_as")
"""What is a view, or the tensor itself, or a copy, by how values are laid out."""


class SharedMemory(UnsupportedOperation):
    """A tensor is used that shares memory with one overwritten in place, at least as values are laid out now."""


class Trace(TorchFunctionMode):
    """One forward pass under way: what is known about its tensors, and the books of its backward passes."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        rules: Any,
        *,
        samples: int,
        derived: DerivedWeights,
        folds: bool = True,
        attention: str = "constant",
        laid: bool = False,
    ) -> None:
        super().__init__()
        self.handlers = handlers
        self.rules = rules
        self.ledger = Ledger(samples)
        self.derived = derived
        self.folds = folds
        self.attention = attention
        self.laid = laid
        """Whether values are laid out otherwise than the model does, so that its views may be copies."""
        self.token = object()
        self.device, self.shape = "cpu", torch.Size()
        self.path: list[tuple[str, torch.nn.Module]] = []
        self.weighted: list[tuple[str, torch.nn.Module | None]] = []
        """Name and module of each weighted layer that has run."""
        self.met: list[str] = []
        """Operations in which values of several samples met; refused once their results are used."""
        self.overwritten: list[tuple[Tensor, Tensor]] = []
        """Constants that an in-place operation gave values of the model, and the tensors that hold these."""
        self.embedded: list[tuple[Tensor, Tensor]] = []
        """Which tokens of the input an embedding has looked up, and the vectors found for them."""

    # -- what is known about a tensor -----------------------------------------------------------------------------

    def start(self, x: Tensor) -> Tensor:
        """Mark the model's input as what everything depends on."""
        self.device, self.shape = x.device.type, x.shape
        if not x.is_floating_point():
            mark(x, Origin(self.token, tokens=torch.arange(x.numel(), device=x.device).view_as(x)))
            return x
        origin = Origin(self.token, early=Early("the model's input", carries=True))
        mark(x, origin)
        mark(_root(x), origin)  # which it is a view of where values are laid out anew
        return x

    def origin(self, value: object) -> Origin | None:
        """What this trace knows about a tensor, None for constants and other objects."""
        origin = value.__dict__.get("_spray_origin") if isinstance(value, Tensor) else None
        return origin if isinstance(origin, Origin) and origin.trace is self.token else None

    def depends(self, value: object) -> bool:
        """Whether relevance can flow through a tensor on to the input."""
        origin = self.origin(value)
        return origin is not None and origin.gate is None and origin.tokens is None

    def gate(self, value: Tensor, name: str) -> Tensor:
        """Hold a tensor constant as a factor made by the operation ``name``: no relevance flows through it."""
        held = value.detach()
        mark(held, Origin(self.token, gate=name))
        return held

    def _refuse_met(self, values: Any) -> None:
        """Refuse gates in which values of several samples have met."""
        if any(self.is_gate(value) and self._has_met(value) for value in tensors_in(values)):
            raise UnsupportedOperation(f"{self.met[-1]}: {MEETING}")

    def _has_met(self, value: Tensor) -> bool:
        """Whether values of several samples have met in a tensor."""
        origin = self.origin(value)
        return bool(self.met) and origin is not None and origin.axis is None

    def is_gate(self, value: object) -> bool:
        """Whether a tensor is held constant as a factor."""
        origin = self.origin(value)
        return origin is not None and origin.gate is not None

    def current(self, tensor: Tensor) -> Tensor:
        """The tensor that holds the values now, after in-place operations on it.

        Raises:
            UnsupportedOperation: it shares memory with a tensor that was overwritten in place since, or it was made
                by an operation the trace could not see.
        """
        tensor = self._filled(tensor)
        origin = self.origin(tensor)
        while origin is not None and origin.replaced is not None:
            tensor = origin.replaced
            origin = self.origin(tensor)
        if origin is not None:
            root = self.memory(tensor)
            if root is not None and root.overwritten:
                raise self._shares_memory()
        elif tensor.requires_grad and not tensor.is_leaf:
            made_by = type(tensor.grad_fn).__name__
            raise UnsupportedOperation(
                f"a tensor{self.place} was made outside the sight of the trace (by {made_by}): a scripted or "
                "compiled module, a custom autograd function, or a tensor kept from an earlier call. Use the "
                "eager, plain form of that part of the model."
            )
        return tensor

    def memory(self, tensor: Tensor) -> Origin | None:
        """What is known of the tensor whose memory a tensor shows, or might show as the model lays values out."""
        origin = self.origin(_root(tensor))
        while origin is not None and origin.copy_of is not None:
            origin = origin.copy_of
        return origin

    def _remember_copy(self, of: Tensor, copy: Tensor) -> None:
        if copy.untyped_storage().data_ptr() == of.untyped_storage().data_ptr():
            return
        root, source = _root(copy), self.memory(of)
        own = self.origin(root)
        if own is None:
            mark(root, Origin(self.token, copy_of=source))
        elif own is not source:
            own.copy_of = source

    def _filled(self, tensor: Tensor) -> Tensor:
        """The tensor, or what an in-place operation has made of it where it is a constant."""
        for constant, out in self.overwritten:
            if tensor is constant:
                return out
        if self.overwritten and self.origin(tensor) is None and tensor.numel() > 0:
            memory = tensor.untyped_storage().data_ptr()
            if any(memory == constant.untyped_storage().data_ptr() for constant, _ in self.overwritten):
                raise self._shares_memory()
        return tensor

    def _shares_memory(self) -> SharedMemory:
        return SharedMemory(
            f"a tensor{self.place} shares memory with one that an in-place operation has overwritten since. "
            "Relevance cannot follow views of overwritten tensors: write the in-place operation out of place "
            "(inplace=False, x = x + y instead of x += y)."
        )

    def finish(self, output: Tensor) -> Tensor:
        """The model's output as it stands after the last in-place operation; c is what it hands back."""
        output = self.current(output)
        self.consume([output])
        origin = self.origin(output)
        if self._has_met(output):
            raise UnsupportedOperation(f"{self.met[-1]}: {MEETING}")
        if origin is not None and origin.early is not None:
            origin.early.demand("quotient")
        return output

    def captured(self, output: Tensor, name: str) -> Tensor:
        """A module's output as it stands when the module returns.

        Raises:
            UnsupportedOperation: no relevance flows through it.
        """
        output = self.current(output)
        if not self.depends(output):
            raise UnsupportedOperation(
                f"the output of module '{name}' does not depend on the input, or is held constant as a gate, so it "
                "has no relevance. Name a module whose values are handed on."
            )
        return output

    def relevance(self, value: Tensor, carried: Tensor) -> Tensor:
        """R of a tensor from what was carried to it, c or R; of a layer with a folded BatchNorm, after that."""
        origin = self.origin(value)
        if origin is not None and origin.early is not None and origin.early.carried == "relevance":
            return carried
        if (
            origin is not None
            and origin.call is not None
            and origin.folded <= (origin.call.layer.fold is not None)
        ):
            return origin.call.relevance(carried)
        return carried * value.detach()

    @contextmanager
    def inside(self, child: str) -> Iterator[None]:
        """While it is entered, the trace is in a child of the module it is in, if there is one of that name."""
        name, module = self.path[-1] if self.path else ("", None)
        inner = getattr(module, child, None)
        entered = (
            [(f"{name}.{child}" if name else child, inner)] if isinstance(inner, torch.nn.Module) else []
        )
        self.path.extend(entered)
        try:
            yield
        finally:
            del self.path[len(self.path) - len(entered) :]

    @property
    def place(self) -> str:
        """Where in the model the trace is, for messages."""
        named = [name for name, _ in self.path if name]
        return f" in module '{named[-1]}' ({type(self.path[-1][1]).__name__})" if named else ""

    # -- the mode -------------------------------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if torch.is_autocast_enabled(self.device):
            with torch.autocast(
                self.device, enabled=False
            ):  # the model's own: maps are computed in full precision
                return self.__torch_function__(func, types, args, kwargs)
        name = operation_name(func)
        if name in METADATA:
            return func(*args, **(kwargs or {}))
        args, named = map_tensors(self.current, (args, dict(kwargs or {})))
        tensors = list(tensors_in((args, named)))
        tracked = [tensor for tensor in tensors if self.depends(tensor)]
        if name == "embedding" and self.tokens(args[0] if args else named["input"]) is not None:
            return self._follow(name, func, args, named, tracked)
        if not tensors:
            return func(*args, **named)
        if not tracked or name in CONSTANTS:
            return self._constant(name, func, args, named, tensors)
        return self._follow(name, func, args, named, tracked)

    def tokens(self, value: object) -> Tensor | None:
        """Which of the input's tokens those of a tensor are, None where it holds none."""
        origin = self.origin(value)
        return None if origin is None else origin.tokens

    def _constant(
        self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, tensors: list[Tensor]
    ) -> Any:
        """An operation on constants; what is made of a gate stays a gate, tokens moved or chosen stay tokens."""
        gates = [origin.gate for origin in map(self.origin, tensors) if origin is not None and origin.gate]
        args, kwargs = map_tensors(frozen, (args, kwargs))
        with torch.no_grad():
            out = func(*args, **kwargs)
        written = [args[0], _root(args[0])] if gates and overwrites(name) else []
        axis = self._samples_of_gates(name, func, (args, kwargs), out) if gates else 0
        met = any(map(self._has_met, tensors))
        for tensor in tensors_in((out, written)):
            if gates and tensor.is_floating_point():
                mark(tensor, Origin(self.token, gate=gates[0], axis=axis))
            elif met and self.origin(tensor) is None:  # a mask or an index, refused where it is used
                mark(tensor, Origin(self.token, gate=name, axis=None))
        if any(self.tokens(tensor) is not None for tensor in tensors):
            for tensor, places in tokens.followed(name, func, (args, kwargs), out, self.tokens):
                mark(tensor, Origin(self.token, tokens=places))
        return out

    def _samples_of_gates(self, name: str, func: Callable[..., Any], given: Any, out: Any) -> int | None:
        """The dimension of the samples in what an operation on gates returned, None where they met, too."""
        gates = [tensor for tensor in tensors_in(given) if self.is_gate(tensor)]
        axis = self._samples(name, gates)
        if self.ledger.samples > 1 and axes.meet(name, given[0], given[1], axis):
            self.met.append(f"{name}{self.place}")
            return None
        first = next(tensors_in(out), None)
        return axis if first is None else axes.after(name, func, given, gates, axis, first)

    def _follow(
        self, name: str, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], tracked: list[Tensor]
    ) -> Any:
        name, func, kwargs, in_place = out_of_place(name, func, kwargs)
        first = next((key for key in ("input", "tensors") if key in kwargs), None)
        if not args and first is not None:
            args = (kwargs.pop(first),)
        call = Call(self, name, func, args, kwargs, tracked, in_place=in_place)
        handler = self.handlers.get(name)
        if handler is None:
            raise call.refuse(
                "there is no rule for this operation. Write this part of the model with operations that have one, "
                "or add a handler for it (CONTRIBUTING.md: Add an operation); `gradient` and "
                "`gradient_x_input` need no rules."
            )
        if kwargs.get("out") is not None:
            raise call.refuse("writing into out=… hides where values come from. Use the returned tensor.")
        if not torch.is_grad_enabled():
            raise call.refuse(
                "the model turns gradients off inside its forward (no_grad, inference_mode, detach), so relevance "
                "cannot follow. Remove that, or explain the part of the model after it."
            )
        call.axis = self._samples(name, tracked)
        met = self.ledger.samples > 1 and axes.meet(name, call.args, kwargs, call.axis)
        if met and name not in axes.ASIDE:
            raise call.refuse(MEETING)
        self._refuse_met((args, kwargs))
        if call.axis and name in ("linear", "layer_norm", "rms_norm") and self.depends(args[0]):
            with self:
                return func(args[0].movedim(call.axis, 0), *args[1:], **kwargs).movedim(0, call.axis)
        if name != "batch_norm":
            self.consume(tracked)
        out = handler(call)
        call.axis = None if met else self._samples_after(call, (args, kwargs), out)
        if met:
            self.met.append(f"{name}{self.place}")
        for gate in filter(self.is_gate, tensors_in(out)):
            gate.__dict__["_spray_origin"].axis = call.axis
        self._refuse_met(out)
        out = map_tensors(lambda tensor: self.marked(call, tensor), out)
        if self.laid and name in COPIES:
            self._remember_copy(args[0], out)
        if in_place:
            origin = self.origin(args[0])
            root = self.memory(args[0])
            if out.dtype != args[0].dtype:
                raise call.refuse(
                    f"in place it casts {out.dtype} to {args[0].dtype}. Cast before the operation."
                )
            if origin is None or root is None:
                self.overwritten.append((args[0], out))
            elif out is not args[0]:
                origin.replaced = out
                root.overwritten = True
        return out

    def _samples(self, name: str, tracked: list[Tensor]) -> int | None:
        """The dimension of the samples in tensors that depend on the input, as that operation lays them together."""
        origins = [(self.origin(tensor), tensor.ndim) for tensor in tracked]
        return axes.common(name, [(origin.axis, ndim) for origin, ndim in origins if origin is not None])

    def _samples_after(self, call: Call, given: tuple[Any, Any], out: Any) -> int | None:
        """The dimension of the samples in what an operation has returned for the arguments given."""
        first = next(tensors_in(out), None)
        if first is None or not call.tracked:
            return call.axis
        return axes.after(call.name, call.function, given, call.tracked, call.axis, first)

    def consume(self, tracked: list[Tensor]) -> None:
        """Tell the weighted layers whose outputs are used that they are."""
        for tensor in tracked:
            origin = self.origin(tensor)
            if origin is not None and origin.call is not None:
                origin.call.consumed(tensor, folded=origin.folded)

    def marked(self, call: Call, out: Tensor) -> Tensor:
        """Mark an output of an operation on tracked tensors."""
        if self.origin(out) is not None or not out.is_floating_point():
            return out
        if out.dtype not in (torch.float32, torch.float64):
            raise call.refuse(
                f"it casts to {out.dtype}, in which quotients of small numbers lose all digits. Leave the cast out: "
                "maps are computed in the precision of the weights."
            )
        if not out.requires_grad:
            raise call.refuse(
                "its result does not depend on the input differentiably, so relevance cannot follow."
            )
        if call.origin is not None:
            call.origin.axis = call.axis
            mark(out, call.origin)
            return out
        early = self.early(call, carries=call.carries == "natively")
        if early is not None and call.carries == "elementwise" and out.shape == call.tracked[0].shape:
            early.carries = True
            out = either(call.tracked[0], out, early)
        mark(out, Origin(self.token, early=early, nonnegative=self._nonnegative(call), axis=call.axis))
        return out

    def _nonnegative(self, call: Call) -> bool:
        """Whether the operation is a ReLU or ReLU6, or one that keeps signs on nothing but values ≥ 0."""
        known = (origin.nonnegative for origin in map(self.origin, call.tracked) if origin is not None)
        return call.name in ("relu", "relu6") or (call.keeps_sign and all(known))

    def early(self, call: Call, *, carries: bool) -> Early | None:
        """The output of an operation ahead of the first layer that carries c, None if it is not there."""
        before = [origin.early for origin in map(self.origin, call.tracked) if origin is not None]
        parents = [early for early in before if early is not None]
        if len(parents) == len(before):
            return Early(call.name + self.place, tuple(parents), carries=carries)
        for early in parents:
            early.demand("quotient")
        return None


def _root(tensor: Tensor) -> Tensor:
    """The tensor whose memory a view shows."""
    return tensor if tensor._base is None else tensor._base
