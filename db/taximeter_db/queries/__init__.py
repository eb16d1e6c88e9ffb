"""What pages and reports read: one page at a time, by sequence number, never by OFFSET and never by counting."""
