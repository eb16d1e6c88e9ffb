"""Providers' bills: reading the files that they publish, and comparing them with the log."""
