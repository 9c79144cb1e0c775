"""The rules of the checker, by what they look at: the log, the slices, the read models, the streams."""
