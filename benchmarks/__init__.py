"""What a deployment costs, measured against the bare tools: `make bench`."""
