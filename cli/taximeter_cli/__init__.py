"""The taximeter command and the embedded stack."""
