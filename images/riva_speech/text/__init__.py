"""From token numbers to text."""
