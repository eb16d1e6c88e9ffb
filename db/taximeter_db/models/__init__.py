"""The tables, declared with SQLAlchemy."""
