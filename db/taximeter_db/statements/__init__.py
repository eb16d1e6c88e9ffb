"""Statements: what a workspace had, paid, used and has left, month by month (docs/statements.md)."""
