"""Validation of requests, uploads, downloads and network sources."""
