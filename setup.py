"""The compiled twins, and what a wheel has beside the modules; everything else is in pyproject.toml.

Without a compiler the install goes on. The twins keep to Python's stable ABI: one wheel serves 3.11 and each newer one,
at no cost that could be measured.
"""

import re
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
STABLE = {"Py_LIMITED_API": "0x030b0000", "CYTHON_LIMITED_API": "1"}
FLAGS = ["-O3", "-g0", "-Werror=implicit-function-declaration"]  # the stable ABI lacks macros
LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?!\w+:)[^)]+\)")  # to a file of the project, or an image of it

is_stable = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded Pythons have no stable ABI


class BuildPy(build_py):
    """Also puts the table of the lab into the package."""

    def run(self) -> None:
        """Copy it behind the modules; an editable install finds it in sql/."""
        super().run()
        if not self.editable_mode:
            self.copy_file(str(HERE / "sql/stu.sql"), str(Path(self.build_lib, "loader/lab/stu.sql")))


def description() -> str:
    """README for a package index: its links to files lead nowhere there, so only their words stay."""
    lines = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(LINK.sub(r"\g<text>", line) for line in lines if not line.startswith("!["))


setup(
    cmdclass={"build_py": BuildPy},
    long_description=description(),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            f"loader.wire.{name}",
            [f"loader/wire/{name}.pyx"],
            optional=True,
            extra_compile_args=FLAGS,
            define_macros=list(STABLE.items()) if is_stable else [],
            py_limited_api=is_stable,
        )
        for name in ("_binlog", "_codec")
    ],
    data_files=[("share/man/man1", ["docs/loader.1"])],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if is_stable else {},
)
