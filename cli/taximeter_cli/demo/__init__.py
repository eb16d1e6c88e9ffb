"""Invented traffic and history for taximeter up --demo."""
