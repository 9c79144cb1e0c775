"""Conventions that all routes share: the connection and its limits, keys, bodies, answers, errors."""
