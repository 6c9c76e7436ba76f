"""What relevance costs: forward, gradient, ours, zennit and captum, interleaved in one process.

    python benchmarks/attribution.py [--json] [--threads 2] [--repeats 5] [--models vgg16 resnet50 …]

Every method runs once per round, in turn, so that what else the machine does hits all alike; the figure is the
median over rounds of process CPU time (all threads) per batch, and its ratio to forward + gradient, the price of
a plain saliency map. Peak memory is what the allocator of one more pass reports above its start, see ``peak``.
zennit and captum run where they are installed and support the model.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
# (a script's own folder comes first on the path, where stores.py would hide the package of that name)

import torch  # noqa: E402
import torchvision  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from spray.engine import Explainer  # noqa: E402

OURS = ("lrp_epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1")


def small_cnn() -> nn.Module:
    """The 28² network of the demo's size."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int, tuple[str, ...]]] = {
    "small_cnn": (small_cnn, (1, 28, 28), 64, OURS),
    "resnet50": (torchvision.models.resnet50, (3, 224, 224), 2, OURS),
    "vgg16": (torchvision.models.vgg16, (3, 224, 224), 1, OURS),
    "efficientnet_b0": (
        torchvision.models.efficientnet_b0,
        (3, 224, 224),
        4,
        ("lrp_epsilon", "epsilon_plus_flat"),
    ),
    "vit_b_16": (torchvision.models.vit_b_16, (3, 224, 224), 1, ("cp_lrp", "attn_lrp")),
}


def forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def gradient(model: nn.Module, x: Tensor) -> None:
    leaf = x.detach().requires_grad_()
    logits = model(leaf)
    torch.autograd.grad(logits.gather(1, logits.argmax(1, keepdim=True)).sum(), leaf)


def by_zennit(model: nn.Module, name: str, composite: str) -> Callable[[Tensor], object] | None:
    """zennit's pass on a copy (it changes the model), None where it has no canonizer for the model."""
    try:
        from zennit.attribution import Gradient
        from zennit.composites import COMPOSITES
        from zennit.torchvision import ResNetCanonizer, VGGCanonizer
    except ImportError:
        return None
    canonizers = {"resnet50": ResNetCanonizer, "vgg16": VGGCanonizer, "small_cnn": None}
    theirs = {"lrp_epsilon": "epsilon_plus"}.get(composite, composite)
    if name not in canonizers or theirs not in COMPOSITES or composite == "lrp_epsilon":
        return None
    canonizer = canonizers[name]
    bounds = {"low": -3.0, "high": 3.0} if composite == "epsilon_gamma_box" else {}
    changed = copy.deepcopy(model)

    def run(x: Tensor) -> object:
        settings = COMPOSITES[theirs](canonizers=[canonizer()] if canonizer else [], **bounds)
        with Gradient(model=changed, composite=settings) as attributor:
            return attributor(
                x, lambda out: torch.zeros_like(out).scatter_(1, out.argmax(1, True), 1.0) * out
            )

    return run


def by_captum(model: nn.Module) -> Callable[[Tensor], object] | None:
    """captum's LRP-ε on a copy, which it needs without in-place ReLUs and with a rule for flattening.

    (Its integrated gradients would be as many gradients as it has steps, 50 by default.)
    """
    try:
        from captum.attr import LRP
        from captum.attr._utils.lrp_rules import EpsilonRule
    except ImportError:
        return None
    changed = copy.deepcopy(model)
    for module in changed.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False

    def run(x: Tensor) -> object:
        for module in changed.modules():
            if isinstance(module, nn.Flatten):
                module.rule = EpsilonRule()  # captum takes its rules away after each pass
        return LRP(changed).attribute(x, target=0)

    return run


def methods(
    model: nn.Module, name: str, composites: tuple[str, ...]
) -> dict[str, Callable[[Tensor], object]]:
    """Everything to be timed on a model."""
    table: dict[str, Callable[[Tensor], object]] = {
        "forward": lambda x: forward(model, x),
        "gradient": lambda x: gradient(model, x),
    }
    for composite in composites:
        explainer = Explainer(model, composite)
        table[composite] = lambda x, explainer=explainer: explainer.explain(x)  # type: ignore[misc]
        peer = by_zennit(model, name, composite)
        if peer is not None:
            table[f"zennit {composite}"] = peer
    captum = by_captum(model)
    if captum is not None and name in ("small_cnn", "vgg16"):
        table["captum lrp"] = captum
    return table


def peak(run: Callable[[Tensor], object], x: Tensor) -> float:
    """Most memory in MiB that one pass holds at a time above its start, by the allocator's own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run(x)
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds per batch (median), ratio to forward + gradient, and peak memory, per method."""
    build, shape, batch, composites = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    x = torch.randn(batch, *shape).clamp(-3, 3)
    table = methods(model, name, composites)
    seconds: dict[str, list[float]] = {method: [] for method in table}
    for round_ in range(repeats + 1):
        for method, run in table.items():
            start = time.process_time()
            run(x)
            if round_:  # the first round warms caches up
                seconds[method].append(time.process_time() - start)
    medians = {method: statistics.median(times) for method, times in seconds.items()}
    memory = {method: peak(run, x) for method, run in table.items()}
    return {
        method: {
            "seconds": medians[method],
            "per_gradient": medians[method] / medians["gradient"],
            "memory_mib": memory[method],
            "memory_per_gradient": memory[method] / memory["gradient"],
        }
        for method in table
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    results = {}
    for name in arguments.models:
        results[name] = measure(name, arguments.repeats)
        if not arguments.json:
            print(f"\n{name}, batch {MODELS[name][2]}", flush=True)
            for method, row in results[name].items():
                print(
                    f"  {method:32s} {row['seconds']:8.3f} s  {row['per_gradient']:5.2f} × gradient"
                    f"  {row['memory_mib']:8.0f} MiB  {row['memory_per_gradient']:5.2f} ×",
                    flush=True,
                )
    if arguments.json:
        machine = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": arguments.threads,
        }
        json.dump({"machine": machine, "results": results}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
