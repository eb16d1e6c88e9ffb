"""What an event costs: the price book in memory, exact and without a database.

`PriceBook` prices; the worker books with it, and `Meter.price` asks it, so both give one answer.
"""
