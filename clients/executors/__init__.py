"""Where a device's model runs: in the device's own process, in the fleet's, or nowhere (the test double)."""
