"""Schedules: what creates and changes them, and the service that fires them."""
