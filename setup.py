"""The compiled twin of the encoder; everything else is in pyproject.toml. Without a compiler the install goes on."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("loader._frames", ["loader/_frames.pyx"], optional=True, extra_compile_args=["-O3"])])
