"""Specs of functions: found in files and modules, and every mistake named with its way out."""

import pytest

from spray.loading import SpecError, call, load_callable

SOURCE = """
import neighbour
from dataclasses import dataclass

@dataclass
class Thing:
    size: int = 3

def load():
    return neighbour.VALUE

def sized(width, height=2):
    return width

def broken():
    raise TypeError("inside")

number = 5
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("VALUE = 7")
    return tmp_path


def test_a_function_of_a_file_that_imports_its_neighbour(folder, monkeypatch):
    assert call(f"{folder}/model.py:load") == 7
    assert load_callable(f"{folder}/model.py:load") is load_callable(f"{folder}/model.py:load")
    monkeypatch.chdir(folder)
    assert call("model.py:Thing").size == 3


def test_two_files_of_one_name_are_two_modules(folder):
    (folder / "other").mkdir()
    (folder / "other" / "model.py").write_text("def load(): return 8")
    assert (call(f"{folder}/model.py:load"), call(f"{folder}/other/model.py:load")) == (7, 8)


def test_a_function_of_a_module():
    assert load_callable("os.path:basename")("a/b") == "b"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("model.py", "expected FILE.py:FUNCTION"),
        ("model.py:", "expected FILE.py:FUNCTION"),
        (":load", "expected FILE.py:FUNCTION"),
        ("{folder}/absent.py:load", "there is no file .*absent.py"),
        ("{folder}/model.py:lode", "no function 'lode'. It has: Thing, broken, dataclass, load, sized"),
        ("{folder}/model.py:number", "no function 'number'"),
        ("{folder}/model.py:sized", "'width'. Name a function that needs none"),
        ("no_such_package.module:load", "no module 'no_such_package'. For a file"),
        ("os.no_such:load", "no module 'os.no_such'"),
    ],
)
def test_mistakes_are_named_with_the_way_out(folder, spec, words):
    with pytest.raises(SpecError, match=words):
        call(spec.format(folder=folder))


def test_errors_of_the_function_itself_come_through(folder):
    with pytest.raises(TypeError, match="inside"):
        call(f"{folder}/model.py:broken")
    (folder / "needy.py").write_text("import absent_dependency")
    for _ in range(2):  # a file that failed is not taken for loaded
        with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
            call(f"{folder}/needy.py:load")


def test_a_module_whose_own_import_fails_is_not_called_missing(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "needy_module.py").write_text("import absent_dependency")
    with pytest.raises(ModuleNotFoundError, match="absent_dependency") as caught:
        call("needy_module:load")
    assert not isinstance(caught.value, SpecError)
