"""Medical Inventory: counts and names the items on a photograph of a shelf or table."""
