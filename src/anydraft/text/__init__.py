"""Text as bytes: what tokens write, how text is encoded from the middle, how two vocabularies compare."""
