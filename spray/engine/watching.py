"""What surrounds a pass through the model: hooks that know where it is and keep outputs, and torch's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from spray.engine.errors import BadInput
from spray.engine.trace import Trace


@contextmanager
def watched(model: nn.Module, layers: tuple[str, ...], trace: Trace | None) -> Iterator[dict[str, Tensor]]:
    """While the model runs: keep the trace's place in it, and collect the outputs of the named modules."""
    captured: dict[str, Tensor] = {}
    with ExitStack() as stack:
        if trace is not None:  # two hooks for all modules: cheaper than two for each
            place = _Place(trace, {id(module): name for name, module in model.named_modules()})
            stack.callback(register_module_forward_pre_hook(place.enter).remove)
            stack.callback(register_module_forward_hook(place.leave, always_call=True).remove)
        for name in dict.fromkeys(layers):
            hook = partial(_capture, captured, name, trace)
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield captured


class _Place:
    """Keeps a trace's place in its model; modules of other models, running in other threads, are not its concern."""

    def __init__(self, trace: Trace, names: dict[int, str]) -> None:
        self.trace, self.names, self.thread = trace, names, get_ident()

    def enter(self, module: nn.Module, inputs: Any) -> None:
        if id(module) in self.names and get_ident() == self.thread:
            self.trace.path.append((self.names[id(module)], module))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        path = self.trace.path
        if path and path[-1][1] is module and get_ident() == self.thread:
            path.pop()


def _capture(
    captured: dict[str, Tensor], name: str, trace: Trace | None, module: nn.Module, inputs: Any, output: Any
) -> Tensor | None:
    if name in captured:
        raise BadInput(
            f"module '{name}' ({type(module).__name__}) runs more than once in a pass, so its relevance has no one "
            "place. Name the module around it, or a neighbour that runs once."
        )
    if not isinstance(output, Tensor):
        raise BadInput(
            f"module '{name}' returns {type(output).__name__}; only a module that returns a tensor works."
        )
    if trace is None:
        if not output.requires_grad:
            raise BadInput(f"the output of module '{name}' does not depend on the input.")
        captured[name] = output
        return output.clone()  # so that an in-place operation after the module leaves its output as it is
    captured[name] = trace.captured(output, name)
    return None


@contextmanager
def computing(device: str) -> Iterator[None]:
    """Gradients on, autocast off, and full float32 precision, whatever the caller has set."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
        try:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
