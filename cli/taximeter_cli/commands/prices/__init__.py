"""The commands of taximeter prices."""
