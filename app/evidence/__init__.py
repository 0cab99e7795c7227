"""What the service finds out itself: one protocol, one module per source."""
