"""Parts of `unipixel data`."""
