"""Values that cost more to make than to look up: in this process, and in Redis for all processes."""
