"""Find peaks, group them by tags and fill missing joints, on the host (`cpu`) and on the device (`cuda`)."""

from kernels.options import DecodeOptions

__all__ = ["DecodeOptions"]
