"""A device made for the tests: autograd runs its nodes on a thread of their own, as it does for CUDA."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils.cpp_extension import include_paths, library_paths

SOURCE = Path(__file__).with_name("device.cpp")
NAME = "toy"


def compiler() -> str | None:
    """The C++ compiler to build it with; None where there is none that is known to do."""
    return shutil.which("g++") if sys.platform == "linux" else None


def build(folder: Path) -> Path:
    """Compile the device into `folder`: some ten seconds.

    Raises:
        RuntimeError: the compiler refuses; its messages.
    """
    library = folder / "toy.so"
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    command = [compiler() or "g++", "-shared", "-fPIC", "-std=c++20", "-O0", abi]
    command += [f"-I{path}" for path in include_paths()] + [str(SOURCE), "-o", str(library)]
    command += [f"-L{path}" for path in library_paths()] + ["-ltorch_cpu", "-lc10"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    return library


def load(library: Path) -> None:
    """Make the device known to this process, for good."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(NAME)
    module: Any = ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    torch._register_device_module(NAME, module)  # type: ignore[no-untyped-call] # torch leaves it untyped


def waits() -> int:
    """How often somebody fetched numbers from the device so far."""
    return int(torch.ops.toy.waits())


def fetched() -> int:
    """How many bytes that were."""
    return int(torch.ops.toy.bytes())
