"""Flags and balances in Redis: a copy of what PostgreSQL decided."""
