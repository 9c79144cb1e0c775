"""Pure rules of the review: parsing, counting, merging, ranking, writing. No I/O and no SDK in here."""
