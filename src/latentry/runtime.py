"""What this machine is and how a run uses it: device, precision, threads, seeds, versions."""

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from latentry.errors import RecipeError
from latentry.processes import place

Precision = Literal["bf16", "fp32"]

MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX = -1, -4
"""As glibc's malloc.h numbers its options."""
PACKAGES = ("latentry", "torch", "pytorch-lightning", "torchmetrics", "scikit-learn", "numpy")


def resolve_device(name: str) -> torch.device:
    """Returns the device called `name`; "auto" is CUDA where there is one, else the processor.

    Raises:
        RecipeError: the device is unknown or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise RecipeError(f"device {name!r} is not on this machine: use auto") from None
    if device.type not in ("cpu", "cuda"):
        raise RecipeError(f"device {name!r} is not supported: use auto, cpu or cuda")
    return device


def resolve_precision(name: Literal["auto", "bf16", "fp32"], device: torch.device) -> Precision:
    """Returns "bf16" or "fp32"; "auto" is bf16 where the processor computes in it (AVX512-BF16, AMX, CUDA)."""
    if name != "auto":
        return "bf16" if name == "bf16" else "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # Newer releases of torch report it, for x86 alone; elsewhere fp32 is the safe choice.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_tile")
    return "bf16" if fast else "fp32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which convolutions and matrix products run in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def keep_freed_memory() -> None:
    """Has this process keep the memory that its tensors give back, for the next ones, instead of returning it.

    Every training step asks for the same large blocks again. Taken from the system anew, each of their pages is faulted
    in and zeroed first. Without glibc nothing happens.

    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MALLOC_MMAP_MAX, 0)
        mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)


def join(device: torch.device, what: str) -> None:
    """Connects this process to those that train with it, and makes sure that all say the same of `what` they train.

    torchrun's store, in which they leave their addresses, outlives a restart: so each start has its own part of it.

    Raises:
        RecipeError: another says something else.
    """
    if place().world_size == 1:
        return
    if not distributed.is_initialized():
        store, rank, world_size = next(iter(rendezvous("env://")))
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=distributed.PrefixStore(f"start {place().num_restarts}", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=world_size,
        )
    own = torch.tensor(derive_seed(0, what), device=device)
    least, most = own.clone(), own.clone()
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    if least != most:
        raise RecipeError(
            "the processes have other images or settings than one another: give all the same files and the same command"
        )


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed from (seed, stage, epoch, ...): independent draws that need no saved random state."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def hardware(device: torch.device, precision: Precision) -> dict[str, str | int]:
    """What a timing or a bit-for-bit claim depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "device": device.type,
        "name": name,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def processor_name() -> str:
    """The processor's name, as the operating system gives it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
