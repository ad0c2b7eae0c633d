"""The compiled twin of the encoder; everything else is in pyproject.toml. Without a compiler the install goes on."""

from setuptools import Extension, setup

setup(
    ext_modules=[Extension("loader.wire._codec", ["loader/wire/_codec.pyx"], optional=True, extra_compile_args=["-O3"])]
)
