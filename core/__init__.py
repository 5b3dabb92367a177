"""Shared by all folders: errors, model specs, joint sets, the cache, the command line. Imports no other folder."""
