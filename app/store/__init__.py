"""Durable records behind one protocol (`base.Store`): what was acknowledged is on disk."""
