"""Answers over the champion: the same records, tokens and decoding as in evaluation, for one question at a time."""
