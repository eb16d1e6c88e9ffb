"""Amounts, times and texts as a person reads them."""
