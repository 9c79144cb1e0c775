"""Numbered SQL migrations, shipped as package data; adapters/postgres/migrate.py applies them."""
