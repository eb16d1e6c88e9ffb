"""The price book's store: immutable entries in numbered revisions."""
