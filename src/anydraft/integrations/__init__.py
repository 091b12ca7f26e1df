"""anydraft inside other libraries."""
