"""What every room may know: errors, model specs, joint sets, the cache, the command line. Imports nothing of ours."""
