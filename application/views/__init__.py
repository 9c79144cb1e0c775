"""View models by subject: the documents that queries of read models give. Every entrance shows these."""
