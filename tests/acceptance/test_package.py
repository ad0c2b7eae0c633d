"""What is installed: a wheel from an sdist has every module, the page, the compiled encoder and the lab's table."""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.c", "__pycache__")
IMPORT_ALL = """
import pkgutil, loader
from loader.web.render import HERE
names = [each.name for each in pkgutil.walk_packages(loader.__path__, "loader.") if each.name != "loader.__main__"]
for name in names:
    __import__(name)
print(*sorted(names), *sorted(each.name for each in [*(HERE / "static").iterdir(), *(HERE / "templates").iterdir()]))
print(loader.__file__)
"""
SHOW_TABLE = "from loader.lab.files import sample; print(sample().read_text(encoding='utf-8'), end='')"
SHOW_DESCRIPTION = "from importlib.metadata import metadata; print(metadata('mysql-redis-loader').get_payload())"


def said(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_from_an_sdist_is_whole(tmp_path):
    """Built, installed into an empty environment, and run; the packages that it needs are lent by this one."""
    copy, packages, home = tmp_path / "copy", tmp_path / "packages", tmp_path / "venv"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    said(sys.executable, "-m", "build", "--outdir", packages, copy)
    (wheel,) = packages.glob("*.whl")
    assert len(list(packages.glob("*.tar.gz"))) == 1
    assert "-cp311-abi3-" in wheel.name

    venv.create(home)
    said(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--no-deps", wheel)
    lent = {"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": "/usr/bin:/bin"}
    assert said(home / "bin" / "loader", "--version", env=lent, cwd=tmp_path).endswith(", compiled encoder\n")
    table = said(home / "bin" / "python", "-c", SHOW_TABLE, env=lent, cwd=tmp_path)
    assert table == (ROOT / "sql/stu.sql").read_text(encoding="utf-8")
    shown = said(home / "bin" / "python", "-c", SHOW_DESCRIPTION, env=lent, cwd=tmp_path)
    assert "keeps Redis hashes equal to MySQL rows" in shown
    assert re.findall(r"\]\((?!https:)", shown) == []  # a link to a file leads nowhere on the page of a package
    assert (home / "share/man/man1/loader.1").read_bytes() == (ROOT / "docs/loader.1").read_bytes()
    told, place = said(home / "bin" / "python", "-c", IMPORT_ALL, env=lent, cwd=tmp_path).splitlines()
    assert place.startswith(str(home))
    assert set(told.split()) == {
        *(".".join(path.relative_to(copy).with_suffix("").parts).removesuffix(".__init__") for path in modules(copy)),
        *(path.name for folder in ("static", "templates") for path in (copy / "loader" / "web" / folder).iterdir()),
    }


def modules(copy):
    """The files of all modules, but for what is run or is the package itself."""
    found = [*(copy / "loader").rglob("*.py"), *(copy / "loader").rglob("*.pyx")]
    top = copy / "loader"
    return [path for path in found if path not in {top / "__init__.py", top / "__main__.py"}]
