"""Names the one extension; all that is static is in pyproject.toml.

``MCUMGRX_EXT`` in the environment: ``require`` = an extension that cannot be built is an error (release wheels),
``off`` = do not build it, anything else = build it where a compiler is found.

setuptools calls Cython by itself. An explicit ``cythonize()`` would make new Extension objects, which lose `optional`,
and would drop the .pyx from the source distribution.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

mode = os.environ.get("MCUMGRX_EXT", "auto")
codec = Extension("mcumgrx._codec", ["ext/_codec.pyx"], optional=mode != "require")

setup(
    ext_modules=[] if mode == "off" else [codec],
    options={"build_ext": {"cython_c_in_temp": True}},
)
