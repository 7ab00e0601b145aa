"""Builds the native parts.  Everything else about the project is in pyproject.toml."""

from __future__ import annotations

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension(f"machport.ring.{name}", [f"machport/ring/{name}.py"], extra_compile_args=["-O2", "-std=c11"])
            for name in ("queue", "lifeline")
        ],
        language_level=3,
        build_dir="build",
    )
)
