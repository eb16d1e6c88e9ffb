"""Celery tasks: work that is not a stream."""
