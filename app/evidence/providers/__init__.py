"""External sources of evidence: asked over the network, trusted in nothing, and no reason for a request to fail."""
