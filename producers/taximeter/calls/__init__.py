"""Calls to AI that are metered: who pays for them, the check before them, the record after them."""
