"""All that a kernel holds as plain data; programs that break things compare kernels by it, too."""

from __future__ import annotations

from chaos.kernel_snapshot import snapshot

__all__ = ["snapshot"]
