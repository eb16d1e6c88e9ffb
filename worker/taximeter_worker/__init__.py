"""The worker side: usage consumer, price book, flags, metrics."""
