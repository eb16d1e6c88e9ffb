"""Payloads at rest: compression, encryption, erasure, and the master keys."""
