"""The named API functions of the demo."""
