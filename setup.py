"""Builds the compiled rooms.  Everything else about the project is in pyproject.toml.

Each of these modules is one Python source with C types in a ``.pxd`` beside it.  With MACHPORT_PURE=1 only the ring is
compiled, which cannot do without; see ``machport/form.py``.  With MACHPORT_SANITIZE=address,undefined all are built, in
a place of their own, to run under these sanitizers; see ``make test-asan``.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

RING = [
    f"machport/ring/{name}.py" for name in ("queue", "doorbell", "sign", "mapping", "waking", "lifeline", "sleeping")
]
DATA_QUEUE = [f"machport/dataqueue/{name}.py" for name in ("end", "queue")]
TRAP_PATH = [
    "machport/abi/traps.py",
    # No handler of signals comes between a packet's arrival and its being counted.
    "machport/carrier/packet.py",
    *(f"machport/client/{name}.py" for name in ("calls", "channel", "connection", "events")),
    *(f"machport/server/{name}.py" for name in ("connection", "dispatch", "traps")),
    *(f"machport/face/{name}.py" for name in ("blocking", "closing", "message", "rights", "task")),
]
KERNEL = [
    "machport/abi/message.py",
    *sorted(str(path.with_suffix(".py")) for path in Path("machport/kernel").glob("*.pxd") if path.stem != "phase"),
    "machport/replay/player.py",
    "machport/replay/transcript.py",
]
SANITIZE = os.environ.get("MACHPORT_SANITIZE", "")
LINK = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=undefined"] if SANITIZE else []
FLAGS = ["-std=c11", *(["-O1", "-g", "-fno-omit-frame-pointer", *LINK] if SANITIZE else ["-O2", "-g0"])]
PLACE = "build/sanitized" if SANITIZE else "build"
JOBS = min(2, os.cpu_count() or 1)


def extensions(sources: list[str]) -> list[Extension]:
    return [
        Extension(
            source.removesuffix(".py").replace("/", "."), [source], extra_compile_args=FLAGS, extra_link_args=LINK
        )
        for source in sources
    ]


# The annotations speak to readers and mypy; the C types are in the .pxd files.  An attribute of None is an error there
# as here, not a crash of the daemon.
DIRECTIVES = {"annotation_typing": False, "auto_pickle": False, "nonecheck": True}


def compiled(sources: list[str]) -> list[Extension]:
    modules: list[Extension] = cythonize(
        extensions(sources), language_level=3, build_dir="build", compiler_directives=DIRECTIVES
    )
    return modules


modules = cythonize(extensions(RING), language_level=3, build_dir="build")
if os.environ.get("MACHPORT_PURE", "") in ("", "0"):
    modules += compiled(DATA_QUEUE + TRAP_PATH)
    # What dies may hang in a chain of any length: messages of a queue, ports that ask each other for notifications.
    # And what dies is soon needed again.  Cython knows these two only as decorators, for which our sources would have
    # to import it; it warns of the few subclasses, which have no free list of their own.
    Options.get_directive_defaults().update(trashcan=True, freelist=64)
    modules += compiled(KERNEL)
setup(ext_modules=modules, options={"build": {"build_base": PLACE}, "build_ext": {"parallel": JOBS}})
