"""Relevance maps of a batch: one forward pass followed by a trace, one backward pass per target.

The model is never changed: the same parameter objects, a bit-identical ``state_dict``, no gradients left
behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spray.engine import preflight, tokens
from spray.engine.backprop import ChangedReLU
from spray.engine.composites import Composite, Gradient, Method, composite
from spray.engine.errors import AttributionError, BadInput, BadModel, UnsupportedOperation
from spray.engine.ledger import precise
from spray.engine.methods import Attributor, Foreign
from spray.engine.operations import HANDLERS
from spray.engine.preflight import ByLogits, Ranked
from spray.engine.start import Start as StartStep
from spray.engine.start import start
from spray.engine.strides import channels_last
from spray.engine.trace import SharedMemory, Trace
from spray.engine.watching import computing, watched
from spray.engine.weights import DerivedWeights

Start = str | StartStep
Target = Int[Tensor, " n"] | int | Ranked | ByLogits | None
Seed = Callable[[Tensor, Tensor], Tensor]

__all__ = [
    "AttributionError",
    "BadInput",
    "BadModel",
    "Explainer",
    "Explanation",
    "Ranked",
    "Start",
    "UnsupportedOperation",
    "attribute",
    "explain",
]


@dataclass(frozen=True)
class Explanation:
    """The relevance of a batch.

    Attributes:
        relevance: of every input value, shaped like the inputs.
        logits: the model's output, (n, classes).
        targets: the class explained, (n,).
        layers: relevance of the output of each named module.
        checks: float64 of shape (n,) each: ``start`` (relevance put in), ``sum`` (Σ relevance of the input),
            ``absolute`` (Σ|relevance|), ``absorbed_bias``, ``absorbed_epsilon``, their sum ``absorbed``,
            ``tokens`` (taken by constants added inside the model: learned tokens, position embeddings,
            shifts), and ``unaccounted``, start − sum − absorbed − tokens, which is rounding where all rules
            conserve.
    """

    relevance: Float[Tensor, "n ..."]
    logits: Float[Tensor, "n classes"]
    targets: Int[Tensor, " n"]
    layers: dict[str, Tensor] = field(default_factory=dict)
    checks: dict[str, Float[Tensor, " n"]] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from stores.shown import maps_html

        maps = self.relevance.detach()
        maps = maps.sum(1) if maps.ndim == 4 else maps
        names = ("start", "sum", "absorbed", "tokens")
        told = {name: self.checks[name].tolist() for name in names if name in self.checks}
        return maps_html(maps.float().cpu().numpy(), {"target": self.targets.tolist(), **told})


@dataclass(frozen=True)
class _Pass:
    """A forward pass ready for backward passes: where input relevance is read off, and the outputs of named modules."""

    logits: Tensor
    places: list[Tensor]
    layers: dict[str, Tensor]
    trace: Trace | None


class Explainer:
    """A model ready to be explained batch after batch, with the weights its rules derive kept in between.

    Args:
        model: any module that returns logits (n, classes), in evaluation mode.
        composite: a name of ``spray.engine.composites.COMPOSITES``, a composite, a method of
            ``spray.engine.methods``, or a function (model, inputs, targets) -> relevance.
        layers: names of modules (as in ``model.named_modules()``) whose outputs' relevance is wanted too.

    Raises:
        ValueError: an unknown composite.
        TypeError: a composite that is neither name, composite nor method.
        BadInput: an unknown layer name.
        BadModel: training mode, NaN weights, half precision.
    """

    def __init__(
        self,
        model: nn.Module,
        composite: str | Method | Foreign | Attributor = "epsilon_plus_flat",
        layers: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.composite = _composite(composite)
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        preflight.check_layers(self.layers, model)
        self._checked: tuple[tuple[int, int], ...] | None = None
        self._derived = DerivedWeights()
        self._channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        """Whether to lay the channels of a place side by side: faster convolutions and pooling on a CPU."""
        self._check_model()

    def explain(
        self,
        inputs: Float[Tensor, "n ..."],
        targets: Target = None,
        start: Start = "logit",
    ) -> Explanation:
        """Relevance of one target per sample: classes, one class for all, ``Ranked``, or None for the predicted.

        A function from the logits to classes is taken, too.

        ``start`` is a name of ``spray.engine.start.STARTS`` or a start: where the relevance is put in, and how much.

        Raises:
            BadInput: inputs or targets do not fit the model (``rows`` lists the samples).
            BadModel: see the class.
            UnsupportedOperation: the model uses an operation that no rule covers.
        """
        return self.explain_each(inputs, [targets], start)[0]

    def explain_each(
        self,
        inputs: Float[Tensor, "n ..."],
        targets: Sequence[Target],
        start: Start | list[Start] = "logit",
    ) -> list[Explanation]:
        """Relevance of several targets per sample from one forward pass: one explanation per entry of ``targets``.

        For the true, the predicted and the second class: ``explain_each(inputs, [labels, None, Ranked(1)])``.
        ``start`` is one for all targets, or a list of one for each.

        Raises:
            BadInput: there are not as many starts as targets; otherwise as ``explain``.
        """
        self._check_model()
        preflight.check_inputs(inputs, self.model)
        starts = start if isinstance(start, list) else [start] * len(targets)
        if len(starts) != len(targets):
            raise BadInput(
                f"there are {len(starts)} starts for {len(targets)} targets. Give one of each, or one for all."
            )
        seeds = [_start(each).seed for each in starts]
        with computing(inputs.device.type):
            if isinstance(self.composite, Foreign):
                return [
                    self._foreign(self.composite, inputs, each, seed)
                    for each, seed in zip(targets, seeds, strict=True)
                ]
            try:
                run = self._forward(inputs)
            except SharedMemory:
                if not self._channels_last:
                    raise
                self._channels_last = (
                    False  # in the model's own layout its views are views, and its copies copies
                )
                run = self._forward(inputs)
            return [
                self._backward(run, each, seed, keep=i + 1 < len(targets))
                for i, (each, seed) in enumerate(zip(targets, seeds, strict=True))
            ]

    def _forward(self, inputs: Tensor) -> _Pass:
        integers = not inputs.is_floating_point()  # tokens, which a model may write into
        x = inputs.clone() if integers or inputs.is_inference() else inputs.detach()
        x.requires_grad_(x.is_floating_point())
        method, trace = self.composite, None
        if isinstance(method, Composite):
            laid = self._channels_last and x.ndim == 4 and x.device.type == "cpu"
            if laid:
                x = channels_last(x.detach())
                x.requires_grad_(x.is_floating_point())
            trace = Trace(
                HANDLERS,
                method.rule,
                samples=len(x),
                derived=self._derived,
                folds=method.fold,
                attention=method.attention,
                laid=laid,
            )
            trace.start(x)
        with _mode(method, trace), watched(self.model, self.layers, trace) as captured:
            output = self.model(x if trace is not None else x.clone())  # in-place operations need no leaf
        if trace is not None and isinstance(output, Tensor):
            output = trace.finish(output)
        if trace is not None and isinstance(method, Composite):
            method.check_overrides(trace.weighted)
        logits = preflight.check_logits(output, len(x))
        for name in self.layers:
            if name not in captured:
                raise BadInput(f"module '{name}' did not run in the model's forward, so it has no relevance.")
        layers = {name: captured[name] for name in self.layers}
        return _Pass(logits, self._places(x, trace), layers, trace)

    def _places(self, x: Tensor, trace: Trace | None) -> list[Tensor]:
        """Where the relevance of the input is read off: the input itself, or the vectors of its tokens."""
        if x.is_floating_point():
            return [x]
        if trace is None:
            raise BadInput(
                f"{self.composite.name} needs numbers as inputs, not tokens. Use an LRP composite."
            )
        if not trace.embedded:
            raise UnsupportedOperation(
                f"inputs are {x.dtype} of shape {tuple(x.shape)}: tokens, which an embedding has to look up as they "
                "are. Explain the part of the model after its embedding, with the embedded inputs."
            )
        return [vectors for _, vectors in trace.embedded]

    def _backward(self, run: _Pass, targets: Target, seed: Seed, *, keep: bool) -> Explanation:
        logits = run.logits.detach()
        chosen = preflight.check_targets(targets, logits)
        seeded = seed(logits, chosen)
        if run.trace is not None:
            run.trace.ledger.open(last=not keep and not run.layers)
        carried = iter(_gradients(run.logits, [*run.places, *run.layers.values()], seeded, keep))
        parts = [self._relevance("", place, next(carried), run.trace) for place in run.places]
        relevance = {
            name: self._relevance(name, out, next(carried), run.trace) for name, out in run.layers.items()
        }
        total = parts[0]
        if run.trace is not None and run.trace.embedded:
            places = [places for places, _ in run.trace.embedded]
            total = tokens.total(run.trace.shape, list(zip(places, parts, strict=True)))
        checks = _checks(total, (seeded * logits).sum(1), run.trace)
        return Explanation(total, logits, chosen, relevance, checks)

    def _foreign(self, method: Foreign, inputs: Tensor, targets: Target, seed: Seed) -> Explanation:
        """A method that is not the engine's own: its map, with the checks that hold for any map."""
        if self.layers:
            raise BadInput(
                f"{method.name} gives relevance to inputs only. Leave layers out, or use a composite."
            )
        with torch.no_grad():
            logits = preflight.check_logits(self.model(inputs.clone()), len(inputs))
        chosen = preflight.check_targets(targets, logits)
        relevance = method.relevance(self.model, inputs.clone(), chosen)
        preflight.check_relevance(relevance, inputs, method.name)
        return Explanation(
            relevance.detach(),
            logits,
            chosen,
            {},
            _checks(relevance, (seed(logits, chosen) * logits).sum(1), None),
        )

    def _relevance(self, name: str, value: Tensor, carried: Tensor | None, trace: Trace | None) -> Tensor:
        if carried is None:
            raise UnsupportedOperation(
                f"{f'the output of module {name!r}' if name else 'the input'} has no path to the logits along which "
                "relevance flows: all of its paths end in operations that are held constant (sigmoid, softmax). "
                "If the model ends in a softmax or sigmoid, explain it without that."
            )
        if trace is not None:
            return trace.relevance(value, carried).contiguous()
        times = isinstance(self.composite, Gradient) and self.composite.times_input
        return carried * value.detach() if times else carried

    def _check_model(self) -> None:
        """Look at the weights once, and again whenever they have changed."""
        preflight.check_model(self.model)
        tensors = [*self.model.parameters(), *self.model.buffers()]
        state = tuple((id(tensor), tensor._version) for tensor in tensors)
        if state != self._checked:
            preflight.check_weights(self.model)
            self._derived.know(tensors)
            self._checked = state


def explain(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Target = None,
    composite: str | Method | Foreign | Attributor = "epsilon_plus_flat",
    layers: Sequence[str] = (),
    start: Start = "logit",
) -> Explanation:
    """Relevance of one batch with its checks; for many batches keep an ``Explainer``, see there for all arguments."""
    return Explainer(model, composite, layers).explain(inputs, targets, start)


def attribute(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Target = None,
    composite: str | Method | Foreign | Attributor = "epsilon_plus_flat",
    start: Start = "logit",
) -> Float[Tensor, "n ..."]:
    """The relevance of every input value for the target class (None: the predicted one), shaped like the inputs."""
    return explain(model, inputs, targets, composite, start=start).relevance


_composite, _start = composite, start


def _mode(method: Method | Foreign, trace: Trace | None) -> AbstractContextManager[object]:
    """What has to be entered while the model runs."""
    if isinstance(method, Gradient) and method.relu != "gradient":
        return ChangedReLU(method.relu)
    return trace or nullcontext()


def _gradients(logits: Tensor, values: list[Tensor], seed: Tensor, keep: bool) -> Sequence[Tensor | None]:
    if not logits.requires_grad:
        return [None] * len(values)
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        logits, values, seed, retain_graph=keep, allow_unused=True
    )
    return gradients


def _checks(relevance: Tensor, start: Tensor, trace: Trace | None) -> dict[str, Tensor]:
    rows, dtype = relevance.flatten(1), precise(relevance.device)
    checks = {
        "start": start.cpu().double(),
        "sum": rows.sum(1, dtype=dtype).cpu().double(),
        "absolute": rows.abs().sum(1, dtype=dtype).cpu().double(),
    }
    if trace is not None:
        taken = {kind: trace.ledger.taken(kind) for kind in trace.ledger.KINDS}
        checks["absorbed_bias"], checks["absorbed_epsilon"] = taken["bias"], taken["epsilon"]
        checks["absorbed"] = taken["bias"] + taken["epsilon"]
        checks["tokens"] = taken["tokens"]
        checks["unaccounted"] = checks["start"] - checks["sum"] - checks["absorbed"] - checks["tokens"]
    return checks
