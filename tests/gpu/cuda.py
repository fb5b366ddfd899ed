"""NVRTC and CUDA's headers: where they are, and whether they compile."""

import ctypes
import glob
import os
import sys
from pathlib import Path


class Cuda:
    """NVRTC and the headers that kernels are compiled with, where they were found."""

    nvrtc = headers = None


HEADERS = [
    "cuda_fp16.h", "cuda_bf16.h", "mma.h", "cooperative_groups.h", "cooperative_groups/memcpy_async.h", "cuda/barrier",
]  # fmt: skip


def find_cuda():
    installed = sorted(glob.glob("/usr/local/cuda*"), reverse=True)
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), *installed]
    roots = [Path(root) for root in roots if root]
    for folder in sys.path:
        roots += [Path(found) for found in sorted(glob.glob(f"{folder}/nvidia/cu*"), reverse=True)]
    found = Cuda()
    has = lambda root, name: any((root / "include" / inner / name).exists() for inner in ("", "cccl"))
    count = lambda root: sum(has(root, name) for name in [*HEADERS, "crt/mma.h"])
    # The first that has the most of them.
    best = max(roots, key=count, default=None)
    found.headers = best if best and count(best) else None
    for root in roots:
        for inner in ("lib64", "lib", "targets/x86_64-linux/lib"):
            libraries = sorted(root.glob(f"{inner}/libnvrtc.so*"))
            if libraries and not found.nvrtc:
                found.nvrtc = libraries[0]
    return found


def compile_with_nvrtc(library, headers):
    """Has NVRTC compile something that needs every header; what it says against it, or None."""
    nvrtc = ctypes.CDLL(str(library))
    text = "".join(f"#include <{name}>\n" for name in HEADERS) + 'extern "C" __global__ void nothing() {}\n'
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None):
        return "it makes no program"
    paths = [f"--include-path={headers}/include{inner}".encode() for inner in ("", "/cccl")]
    options = (ctypes.c_char_p * 3)(b"--gpu-architecture=compute_80", *paths)
    if nvrtc.nvrtcCompileProgram(program, 3, options) == 0:
        return None
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    return next((line for line in log.value.decode().splitlines() if "error" in line), "it compiles nothing")
