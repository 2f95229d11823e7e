"""Recipes of training runs, one TOML file per stage, each with its command in the first line."""
