"""The store that many pods share: PostgreSQL, or a database that speaks its language."""
