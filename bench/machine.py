"""What was measured on what: the machine, and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

_PACKAGES = ("machport", "Cython", "pyzmq", "iceoryx2", "faster-fifo", "dbus-fast", "eclipse-zenoh")


def describe() -> dict[str, str]:
    """What a reader needs to know about where the numbers are from."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory()}{_virtual()}",
        "system": f"Linux {platform.release()}, {' '.join(platform.libc_ver())}, Python {platform.python_version()}",
        "versions": ", ".join(filter(None, [*map(_package, _PACKAGES), _program("dbus-daemon")])),
    }


def busy(seconds: float) -> float:
    """How much of all cores others use, of 1, while the caller does nothing for so long."""
    idle_before, all_before = _ticks()
    time.sleep(seconds)
    idle, everything = _ticks()
    return 1 - (idle - idle_before) / max(1, everything - all_before)


def _ticks() -> tuple[int, int]:
    """Ticks of the machine's cores that were idle, and all of them."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _memory() -> str:
    found = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return f"{int(found[1]) / (1 << 20):.0f} GiB" if found else "memory unknown"


def _virtual() -> str:
    return ", virtual" if " hypervisor " in Path("/proc/cpuinfo").read_text() else ""


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _program(name: str) -> str:
    if shutil.which(name) is None:
        return ""
    says = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", says)
    return f"{name} {found[0]}" if found else name
