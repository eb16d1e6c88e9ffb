"""The commands of taximeter, one module each."""
