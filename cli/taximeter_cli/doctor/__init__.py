"""What `taximeter doctor` checks."""
