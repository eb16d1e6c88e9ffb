"""The database side: models, migrations, the ledger."""
