"""Arrays in, arrays out: peaks, tag grouping and refine, on the host (`kernels.cpu`) and the device (`kernels.cuda`)."""

from kernels.options import DecodeOptions

__all__ = ["DecodeOptions"]
