"""The price book's tables."""
