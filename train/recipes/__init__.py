"""Recipes of training runs, one TOML file per stage; the first line of each is its command."""
