"""Why a model says what it says: a number for each pixel, word or value that it was given."""
