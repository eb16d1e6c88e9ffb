"""Exports of the logs as CSV or Parquet."""
