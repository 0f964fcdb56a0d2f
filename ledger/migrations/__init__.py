"""The history of the ledger's tables, and what brings a database to its end."""
