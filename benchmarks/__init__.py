"""Every figure of RESULTS.md has its program here; run them by hand."""
