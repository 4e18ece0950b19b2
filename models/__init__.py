"""Model families: what is learned, from which data. Nothing here knows of flwr or ray."""
