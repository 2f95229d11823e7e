"""Checks on requests, uploads, downloads and network sources of the demo server."""
