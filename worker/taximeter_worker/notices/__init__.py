"""Delivering notices: webhooks by HTTP, everything else by Apprise."""
