"""Whether a CUDA graph is being captured: whoever asks the device anything then breaks the capture."""

from __future__ import annotations

import torch


def capturing() -> bool:
    """Whether this thread's CUDA stream is recording a graph (``torch.cuda.graph``) instead of running it.

    False on machines without CUDA, and before its first use: asking is then safe.
    """
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # torch leaves it untyped
    return used and torch.cuda.is_current_stream_capturing()
