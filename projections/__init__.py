"""The read side: a file for each slice holds its tables, its handlers and its queries. SQL stands here and in adapters/postgres."""
