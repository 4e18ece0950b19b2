"""Tasks that learn from several modalities of one thing, such as its picture and a text about it."""
