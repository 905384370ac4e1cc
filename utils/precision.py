"""Numerical precision of the network: fp32, or a 16-bit type under autocast with weights and likelihood in fp32."""

from typing import Literal

import torch

from utils.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_precision(precision: Precision, device: torch.device) -> str:
    """Resolve "auto" to the fastest on the device: bf16 where it is native, fp16 on older GPUs, else fp32.

    Raises UserError for fp16 without a CUDA device, as fp16 gradients are unusable elsewhere.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UserError("--precision fp16 needs a CUDA GPU; use bf16, fp32 or auto")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; elsewhere it is emulated and slower than fp32."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Autocast to the 16-bit type named by ``precision``; a no-op for fp32."""
    return torch.autocast(device.type, dtype=DTYPES.get(precision), enabled=precision in DTYPES)
