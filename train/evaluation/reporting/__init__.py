"""Pages and tables about finished runs."""
