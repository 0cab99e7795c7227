"""Logs. Measures, decides nothing."""
