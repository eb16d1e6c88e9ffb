"""Threads of a worker beside booking: price book, flags, gauges."""
