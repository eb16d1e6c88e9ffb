"""Holds: an amount set aside for a call that runs, so that calls together never spend more than there is."""
