"""Reading runs and comparing them."""
