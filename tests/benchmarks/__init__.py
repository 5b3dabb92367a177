"""Measurements, off by default: python -m tests.benchmarks.NAME. What runs with the tests are the test_ files."""
