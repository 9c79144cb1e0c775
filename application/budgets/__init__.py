"""Budgets: which ones count a call, the portions that agent runs draw of them, and what people do with them."""
