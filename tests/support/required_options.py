"""What a strategy needs to be told before it can run any task."""

REQUIRED = {
    "DifferentialPrivacyClientSideAdaptiveClipping": "noise_multiplier = 0.01",
    "DifferentialPrivacyClientSideFixedClipping": "clipping_norm = 0.5, noise_multiplier = 0.01",
    "DifferentialPrivacyServerSideAdaptiveClipping": "noise_multiplier = 0.01",
    "DifferentialPrivacyServerSideFixedClipping": "clipping_norm = 0.5, noise_multiplier = 0.01",
    "FedNova": "any_optimizer = true",
    "LocalDP": "clipping_norm = 0.5, noise_multiplier = 0.01",
    "LocalOnly": "client = 0",
    "QFedAvg": "client_learning_rate = 0.05",
    "Scaffold": "any_optimizer = true",
}
"""Options without which a strategy cannot be made, or does not go with a task's own optimizer."""
