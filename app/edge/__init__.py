"""Pure-ASGI layers around the API: who asks, how much, and what a malformed request gets."""
