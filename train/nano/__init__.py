"""What only the small bundled model needs."""
