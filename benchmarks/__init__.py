"""Benchmarks: each starts its own real servers, compares within one run, and checks the ledger afterwards."""
