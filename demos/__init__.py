"""Demonstrations built on the agent."""
