"""Object memory: masks, the bank that holds them, and how they enter a prompt. Knows no model."""
