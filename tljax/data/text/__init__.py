"""Text: tokenizers, and how a text becomes tokens of one length."""
