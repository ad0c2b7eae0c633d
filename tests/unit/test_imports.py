"""Imports of a part of a library, each in a process of its own."""

import subprocess
import sys

import pytest

PACKAGE = {
    "whole/__init__.py": "from whole import heavy\nfrom whole.light import LIGHT\nPI = 3\n"
    "def twice(number):\n    return 2 * number\n",
    "whole/light.py": "LIGHT = 1\n",
    "whole/heavy.py": "from whole.light import LIGHT\nHEAVY = 2\n",
    "able.py": "try:\n    import whole\nexcept ImportError:\n    whole = None\n",
}


@pytest.fixture
def said(tmp_path):
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(code):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from loader.imports import *\n{code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def test_a_module_of_a_bare_package(said):
    """It is imported alone; the package runs once something of its own is asked for, and lacks what it lacks."""
    code = """
import_bare("whole")
import whole.light
print("whole.heavy" in sys.modules)
from whole import light
print("whole.heavy" in sys.modules)
import whole
print(whole.PI, "whole.heavy" in sys.modules, hasattr(whole, "nothing"), whole.light.LIGHT)
import_bare("whole")
print(whole.PI)
"""
    assert said(code) == ["False", "False", "3", "True", "False", "1", "3"]


def test_a_function_of_a_bare_package(said):
    """It can be imported within the block; the package runs once it is called, and has its own one afterwards."""
    code = """
import_bare("whole")
with late_names("whole", "twice"):
    from whole import twice
    with late_names("whole", "twice"):
        from whole import twice as again
print("whole.heavy" in sys.modules, again is twice)
print(twice(2), twice(number=3), "whole.heavy" in sys.modules)
from whole import twice as own
with late_names("whole", "twice"):
    from whole import twice as same
print(own is twice, same is own)
"""
    assert said(code) == ["False", "True", "4", "6", "True", "False", "True"]


def test_a_late_name_is_gone_after_its_block(said):
    """Whoever asks for it then gets that of the package."""
    code = """
import_bare("whole")
with late_names("whole", "twice"):
    from whole import twice
from whole import twice as own
print(twice is own, own.__module__)
"""
    assert said(code) == ["False", "whole"]


def test_a_name_with_a_home(said):
    """It comes from its module, without the package; from the package, if it has moved."""
    code = """
import_bare("whole", LIGHT="whole.light", PI="whole.heavy", twice="whole.nowhere")
from whole import LIGHT
print(LIGHT, "whole.heavy" in sys.modules)
from whole import PI, twice
print(PI, twice(1))
"""
    assert said(code) == ["1", "False", "3", "2"]


def test_a_block_around_modules(said):
    """The modules of a package run within it, no other ones, and it ends with each, also if that fails."""
    code = """
import json
sys.meta_path.insert(0, Around({"whole": lambda: instead("json", "dumps", twice)}))
def twice(number): return 2 * number
(path := __import__("pathlib").Path(sys.path[0]) / "whole/seen.py").write_text("import json\\nSEEN = json.dumps(4)")
(path.parent / "bad.py").write_text("1 / 0")
import able, whole.seen
print(whole.seen.SEEN, json.dumps(4) == "4")
try:
    import whole.bad
except ZeroDivisionError:
    print(json.dumps(4) == "4")
"""
    assert said(code) == ["8", "True", "True"]


def test_a_package_that_is_not_there(said):
    """Its modules say so."""
    code = """
import_bare("nowhere")
try:
    import nowhere.near
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert said(code) == ["nowhere"]


def test_a_library_that_is_not_used(said):
    """It counts as missing within the block only, unless it has been imported before."""
    code = """
with without("whole"):
    import able
print(able.whole)
import whole
del sys.modules["able"]
with without("whole"):
    import able
print(able.whole.PI, whole is sys.modules["whole"])
"""
    assert said(code) == ["None", "3", "True"]
