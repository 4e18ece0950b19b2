"""The Flower ClientApp and the one training loop."""
