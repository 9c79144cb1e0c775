"""The read side: one file for each slice holds its handlers and its queries together. SQL stands here and in adapters/postgres."""
