"""Pure rules of the review: parsing, counting, merging, ranking, writing. The rules use no I/O and no SDK."""
