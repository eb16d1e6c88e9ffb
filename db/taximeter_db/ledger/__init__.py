"""Booking: the one way in which a balance changes, and what follows the log."""
