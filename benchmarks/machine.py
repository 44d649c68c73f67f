"""The machine and the versions that the other benchmarks ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.products import SHAPES, gigaflops
from likra.engine.products import onednn_is_exact, onednn_products

PACKAGES = ("torch", "transformers", "peft", "trl", "lm_eval", "numpy")


def processor() -> str:
    """The name of the CPU, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Print them, and the rate of matrix products in float32."""
    load = os.getloadavg()[0]
    with onednn_products():
        rate = max(max(gigaflops(*shape, 5)) for shape in SHAPES.values())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {device}")
    print(
        f"products in float32: {rate:.0f} GFLOP/s at best, by "
        f"{'oneDNN' if onednn_is_exact() else 'default'}; load at the start {load:.1f}"
    )
    print(
        f"Python {platform.python_version()}, "
        f"{', '.join(f'{name} {version(name)}' for name in PACKAGES)}"
    )


if __name__ == "__main__":
    main()
