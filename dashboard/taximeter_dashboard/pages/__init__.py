"""The AI Tracking page, tab by tab."""
