"""From what a run left to a page that people read."""
