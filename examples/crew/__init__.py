"""A crew that works without a model: it plans, writes, builds, criticises and judges by plain rules, for the slash commands."""
