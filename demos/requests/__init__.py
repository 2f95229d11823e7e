"""What is checked of every request before the pages and routes see it: hosts, log-in, limits, bodies, paths."""
