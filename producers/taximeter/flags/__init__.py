"""The flag cache: is AI enabled for a workspace, answered from memory and kept true by Redis."""
