"""Prepaid metering for AI usage: record usage, check the flag."""
