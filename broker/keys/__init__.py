"""The broker's own keys: made once, kept sealed in the store, loaded into the process that needs them."""
