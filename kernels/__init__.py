"""Arrays in, arrays out: peaks, tag grouping and refine, on the host (`cpu`) and on the device (`cuda`)."""

from kernels.options import DecodeOptions

__all__ = ["DecodeOptions"]
