"""What the cloud sends back for what was shared."""
