"""Networks of trained drafters: torch modules with their files, no decoding (that is `anydraft.drafters`)."""
