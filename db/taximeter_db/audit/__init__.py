"""Proof that the log says what was booked: verify, and signed checkpoints."""
