"""What surrounds a pass through the model: hooks that know where it is and keep outputs, and torch's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spray.engine.errors import BadInput
from spray.engine.trace import Trace


@contextmanager
def watched(model: nn.Module, layers: tuple[str, ...], trace: Trace | None) -> Iterator[dict[str, Tensor]]:
    """While the model runs: keep the trace's place in it, and collect the outputs of the named modules."""
    captured: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if trace is not None:
                stack.callback(module.register_forward_pre_hook(partial(_enter, trace, name)).remove)
                leave = module.register_forward_hook(partial(_leave, trace), always_call=True)
                stack.callback(leave.remove)
            if name in layers:
                hook = partial(_capture, captured, name, trace)
                stack.callback(module.register_forward_hook(hook).remove)
        yield captured


def _enter(trace: Trace, name: str, module: nn.Module, inputs: Any) -> None:
    trace.path.append((name, module))


def _leave(trace: Trace, module: nn.Module, inputs: Any, output: Any) -> None:
    if trace.path and trace.path[-1][1] is module:
        trace.path.pop()


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
