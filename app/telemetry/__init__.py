"""What the service tells of itself. Measures, decides nothing."""
