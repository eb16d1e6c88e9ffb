"""The price book: what an event costs, and why."""
