"""From the broker to a booked batch: receive, merge, price, book, acknowledge."""
