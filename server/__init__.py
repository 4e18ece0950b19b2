"""The Flower ServerApp, the round loop and the cohort grid."""
