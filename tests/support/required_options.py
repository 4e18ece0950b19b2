"""What a strategy needs to be told before it can run any task."""

LITTLE_NOISE = "noise_multiplier = 0.01, noise = 'repeatable'"
REQUIRED = {
    "DifferentialPrivacyClientSideAdaptiveClipping": LITTLE_NOISE,
    "DifferentialPrivacyClientSideFixedClipping": f"clipping_norm = 0.5, {LITTLE_NOISE}",
    "DifferentialPrivacyServerSideAdaptiveClipping": LITTLE_NOISE,
    "DifferentialPrivacyServerSideFixedClipping": f"clipping_norm = 0.5, {LITTLE_NOISE}",
    "FedNova": "any_optimizer = true",
    "LocalDP": f"clipping_norm = 0.5, {LITTLE_NOISE}",
    "LocalOnly": "client = 0",
    "QFedAvg": "client_learning_rate = 0.05",
    "Scaffold": "any_optimizer = true",
}
"""Options without which a strategy cannot be made, or does not go with a task's own optimizer."""
