"""States as trees of named parts: found, replaced, mapped where they are like params."""
