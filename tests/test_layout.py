"""The frame: who may import whom, who owns the packages, and that nothing is ever unpickled."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("spray", "stores", "reports")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
HEAVY = ("torch", "torchvision", "bokeh", "sklearn", "umap", "hdbscan", "numba", "scipy", "PIL")


def test_imports_go_one_way():
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


def test_presentation_and_compute_meet_at_the_top_only():
    """What import-linter's contracts leave open: below the top, compute does not import presentation either."""
    top = ("spray/workflow.py", "spray/cli/", "spray/demo/")
    for path in SOURCES:
        place = path.relative_to(ROOT).as_posix()
        if place.startswith("spray/") and not place.startswith(top):
            assert not {name for name in _imported(path) if name.split(".")[0] == "reports"}, place


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_importing_loads_no_more_than_it_needs():
    code = f"""
import importlib, json, sys
loaded = {{}}
for name in ("stores", "spray", "spray.cli", "reports"):
    importlib.import_module(name)
    loaded[name] = [heavy for heavy in {HEAVY} if heavy in sys.modules]
print(json.dumps(loaded))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = json.loads(found.stdout)
    assert loaded["stores"] == loaded["spray"] == loaded["spray.cli"] == []
    assert not {"torch", "torchvision", "sklearn", "umap", "hdbscan"} & set(loaded["reports"])


def test_the_public_names_exist():
    import spray

    assert set(spray.__all__) <= set(dir(spray))
    for name in spray.__all__:
        assert getattr(spray, name).__module__.startswith("spray.")
    with pytest.raises(AttributeError, match="has no attribute 'atribute'; it has"):
        spray.atribute


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_takes_the_place_of_a_public_name(package):
    """An import of ``reports.server`` sets that name in ``reports``: a function of the same name would be gone."""
    module = importlib.import_module(package)
    inner = {found.name for found in pkgutil.iter_modules(module.__path__)}
    for name in inner & set(module.__all__):
        assert getattr(module, name) is importlib.import_module(f"{package}.{name}")


def test_one_distribution_owns_the_three_packages():
    owner = distribution("spray-audit")
    assert owner.entry_points.select(group="console_scripts")["spray"].value == "spray.cli:main"
    for package in PACKAGES:
        __import__(package)
        assert Path(sys.modules[package].__file__).is_relative_to(ROOT)


def test_tests_are_flat():
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert {path.parent for path in (ROOT / "tests").rglob("test_*.py")} == {ROOT / "tests"}


PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
LOADERS = {"load", "loads", "Unpickler", "open", "Memory"}
BY_NAME = {("spray/loading.py", "cloudpickle")}
"""Modules that pickle and are imported by name: here only to say what of a model's file travels to other processes."""


def _below_root(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def unpickling(path: Path) -> list[str]:
    """Whatever reads pickles, or runs text, in a source file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = (
            {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
        )
        if isinstance(node, ast.ImportFrom):
            source = str(node.module).partition(".")[0]
            wrong = (source in PICKLING and names & LOADERS) or (source == "torch" and "load" in names)
        elif isinstance(node, ast.Import):
            wrong = any(alias.name == "torch" and alias.asname for alias in node.names)
            wrong = wrong or names & (PICKLING - {"pickle", "cloudpickle"})
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            module, _, function = called.rpartition(".")
            given = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
            by_name = given & PICKLING if function == "import_module" or called == "import_module" else set()
            wrong = (
                (
                    called.startswith("torch.")
                    and function == "load"
                    and keywords.get("weights_only") != "True"
                )
                or keywords.get("allow_pickle", "False") != "False"
                or (module in PICKLING and function in LOADERS)
                or called in ("eval", "exec", "__import__")
                or any((_below_root(path), name) not in BY_NAME for name in by_name)
            )
        else:
            continue
        if wrong:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_unpickled(path):
    assert unpickling(path) == []


@pytest.mark.parametrize(
    "text",
    [
        "pickle.loads(data)",
        "import joblib",
        "import torch as t",
        "from torch import load",
        "from joblib import load",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "importlib.import_module('pickle')",
        "import_module('cloudpickle')",
        "joblib.load(path)",
        "eval(text)",
    ],
)
def test_what_unpickles_is_found(tmp_path, text):
    (tmp_path / "a.py").write_text(text)
    assert unpickling(tmp_path / "a.py") == [f"line 1: {text}"]


def test_the_way_out_that_refusals_name_exists() -> None:
    guide = Path(__file__).parents[1].joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
    for recipe in ("Add a rule", "Add an operation", "Add a clustering", "Add a score", "Add a panel"):
        assert f"## {recipe}\n" in guide
