"""Names the two extensions; all that is static is in pyproject.toml.

`mcumgrx._codec` comes from ``ext/_codec.pyx``, and has a twin in Python; `mcumgrx._cbor` is ``mcumgrx/_pycbor.py``
itself, compiled with the types of ``mcumgrx/_cbor.pxd``.

``MCUMGRX_EXT`` in the environment: ``require`` = an extension that cannot be built is an error (release wheels),
``off`` = do not build it, anything else = build it where a compiler is found.

setuptools calls Cython by itself. An explicit ``cythonize()`` would make new Extension objects, which lose `optional`,
and would drop the .pyx from the source distribution.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

mode = os.environ.get("MCUMGRX_EXT", "auto")
optional = mode != "require"
extensions = [
    Extension("mcumgrx._codec", ["ext/_codec.pyx"], optional=optional),
    Extension("mcumgrx._cbor", ["mcumgrx/_pycbor.py"], depends=["mcumgrx/_cbor.pxd"], optional=optional),
]

setup(
    ext_modules=[] if mode == "off" else extensions,
    options={"build_ext": {"cython_c_in_temp": True}},
)
