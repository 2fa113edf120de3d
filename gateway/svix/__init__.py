"""What Svix publishes about itself: the addresses that it sends from."""
