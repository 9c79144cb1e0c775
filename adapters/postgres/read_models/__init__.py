"""Ports of the engine over tables that projections keep."""
