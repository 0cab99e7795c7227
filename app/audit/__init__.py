"""The audit trail of who did what, on the store: noted, checkpointed, verified and exported."""
