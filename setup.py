"""The compiled twins; everything else is in pyproject.toml. Without a compiler the install goes on."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(f"loader.wire.{name}", [f"loader/wire/{name}.pyx"], optional=True, extra_compile_args=["-O3"])
        for name in ("_binlog", "_codec")
    ]
)
