"""Reading other people's weights: readers, porters (name tables), cards."""
