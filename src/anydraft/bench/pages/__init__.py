"""Parts of the page that `anydraft.bench.page` writes: what was measured, as drawings, words and tables.

Every part takes figures that were read leniently (`results.py`) and returns `Markup`, which escapes what it is
given (`markup.py`). Nothing here measures or computes an interval.
"""
