"""What keeps a slow or failing neighbour from taking the service down. Knows no business words."""
