"""Each package says what belongs inside, and unit tests stand as what they test does."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
LOADER = TESTS.parents[1] / "loader"


def test_packages_hold_a_docstring_and_nothing_else():
    """A package's own module is one docstring."""
    for path in LOADER.rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert [type(each) for each in body] == [ast.Expr], path
        assert ast.get_docstring(ast.Module(body, [])), path


def test_unit_tests_mirror_the_packages():
    """A folder of unit tests has the name of a package."""
    packages = {path.parent.name for path in LOADER.glob("*/__init__.py")}
    assert {path.name for path in TESTS.iterdir() if any(path.glob("test_*.py"))} <= packages
