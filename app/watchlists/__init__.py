"""Watchlists: where they come from, how they are fetched, and how each format becomes entities of one kind."""
