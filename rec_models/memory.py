"""Memory settings of a training process."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Whether the C library was told to keep freed blocks of up to 1 GiB for the next allocation.

    Every step allocates the same matrices of tens of megabytes. By default glibc returns them to the kernel, which
    hands back zeroed pages one fault at a time: about a fifth of a step on a CPU. Only glibc knows these settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    kept = library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    return bool(kept and library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES - 1))
