"""Modules, classes and signatures stay small enough to be read at one sitting."""

import ast
from pathlib import Path

import pytest

LOADER = Path(__file__).parents[2] / "loader"
MODULE, CLASS = 400, 250  # lines at most
SIGNATURE = 8  # parameters at most, but for the options of commands
MODULES = sorted(path for path in LOADER.rglob("*.py") if path.is_file())


def test_compiled_sources_are_two():
    """The sources that may be longer are the compiled ones: the codec, and the scanner of the binlog."""
    assert sorted(path.name for path in LOADER.rglob("*.pyx")) == ["_binlog.pyx", "_codec.pyx"]


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(LOADER)) for path in MODULES])
def test_limits(path):
    """No module over 400 lines, no class over 250, no signature over 8 parameters outside the command line."""
    text = path.read_text(encoding="utf-8")
    assert list(too_large(text, options=path.is_relative_to(LOADER / "cli"))) == []


def too_large(text, *, options):
    """Name what is over a limit; `options` lets signatures be as long as a command has options."""
    if (lines := text.count("\n")) > MODULE:
        yield f"module: {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and (lines := node.end_lineno - node.lineno + 1) > CLASS:
            yield f"class {node.name}: {lines} lines"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not options:
            taken = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            count = len([each for each in taken if each.arg not in {"self", "cls"}])
            if count > SIGNATURE:
                yield f"{node.name}: {count} parameters"


@pytest.mark.parametrize(
    ("text", "options", "found"),
    [
        ("x = 1\n" * 400, False, []),
        ("x = 1\n" * 401, False, ["module: 401 lines"]),
        ("class A:\n" + "    x = 1\n" * 250, False, ["class A: 251 lines"]),
        ("class A:\n    def f(self, a, b, c, d, e, f, g, h): ...\n", False, []),
        ("class A:\n    def f(self, a, b, c, /, d, e, *, f, g, h, i): ...\n", False, ["f: 9 parameters"]),
        ("async def f(a, b, c, d, e, f, g, h, i): ...\n", False, ["f: 9 parameters"]),
        ("def f(a, b, c, d, e, f, g, h, i): ...\n", True, []),
    ],
)
def test_what_is_too_large(text, options, found):
    """The limits themselves are met, and one more is too much."""
    assert list(too_large(text, options=options)) == found
