"""AI Tracking: the owner's page and the JSON API behind it. Reads the database and imports nothing else of ours."""
