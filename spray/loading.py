"""Specs on the command line: ``file.py:function``, ``package.module:function`` and ``torchvision:NAME``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any


class SpecError(ValueError):
    """A model or data spec that cannot be followed; the message says what was expected."""


def load_callable(spec: str) -> Callable[..., Any]:
    """The callable that a ``file.py:function`` or ``package.module:function`` spec names.

    The file is executed: name only files that you trust, as you would with ``python file.py``.

    Raises:
        SpecError: the spec has another form, or the file or the function does not exist.
    """
    place, separator, function = spec.rpartition(":")
    if not separator or not place or not function:
        raise SpecError(f"'{spec}' is no spec: expected FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.")
    module = _load_file(Path(place), spec) if place.endswith(".py") else _load_module(place, spec)
    found = getattr(module, function, None)
    if not callable(found):
        names = ", ".join(sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_")))
        raise SpecError(f"'{spec}': {place} has no function '{function}'. It has: {names or 'none'}.")
    return found  # type: ignore[no-any-return]


def call(spec: str) -> Any:
    """What the function of a spec returns when called without arguments.

    Raises:
        SpecError: as ``load_callable``; also if the function needs arguments.
    """
    function = load_callable(spec)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise SpecError(
            f"'{spec}' is called without arguments, but: {error}. Name a function that needs none, such as "
            "def load(): return MyModel(width=64)."
        ) from None
    except ValueError:  # a builtin without a signature; calling it tells
        pass
    return function()


def _load_file(path: Path, spec: str) -> object:
    if not path.is_file():
        raise SpecError(f"'{spec}': there is no file {path.resolve()}.")
    # The name carries the path's digest: two files called model.py are two modules.
    digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = f"spray_spec_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SpecError(f"'{spec}': {path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(module_spec)
    # Registered, so that classes in the file can be found again by DataLoader workers.
    before = frozenset(sys.modules)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.resolve().parent))
    _carry_whole(path.resolve().parent, sys.modules.keys() - before)
    return module


def _carry_whole(folder: Path, names: Collection[str]) -> None:
    """Have workers of a cluster, who cannot import these modules of a folder, be sent their classes with objects."""
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError:  # then there is no cluster either
        return
    for module in (sys.modules[name] for name in names):
        file = getattr(module, "__file__", None)
        if file and Path(file).resolve().parent == folder:
            cloudpickle.register_pickle_by_value(module)


def _load_module(name: str, spec: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the named one needs: its traceback says where
        raise SpecError(
            f"'{spec}': no module '{error.name}'. For a file, write its path with .py, such as ./{name}.py:…"
        ) from None
