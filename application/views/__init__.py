"""View models by subject: the documents that queries of read models return. All entrances show them."""
