"""Many files on many machines: `python -m cluster`. A driver assigns whole files to workers; Ray is loaded when used.

Only names and statistics pass between them, never frames: a worker reads its file and writes its results itself.
"""
