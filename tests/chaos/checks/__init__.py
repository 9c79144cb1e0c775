"""The rules of the checker, by their subject: the log, the slices, the read models, the streams."""
