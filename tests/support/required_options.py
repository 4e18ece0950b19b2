"""What a strategy needs to be told before it can run any task."""

LITTLE_NOISE = "noise_multiplier = 0.01, noise = 'repeatable'"
REQUIRED = {
    "Bulyan": "num_malicious_nodes = 0",
    "DifferentialPrivacyClientSideAdaptiveClipping": LITTLE_NOISE,
    "DifferentialPrivacyClientSideFixedClipping": f"clipping_norm = 0.5, {LITTLE_NOISE}",
    "DifferentialPrivacyServerSideAdaptiveClipping": LITTLE_NOISE,
    "DifferentialPrivacyServerSideFixedClipping": f"clipping_norm = 0.5, {LITTLE_NOISE}",
    "FedAvgM": "server_momentum = 0.9",
    "FedNova": "any_optimizer = true",
    "FedProx": "proximal_mu = 0.1",
    "Krum": "num_malicious_nodes = 0",
    "LocalDP": f"clipping_norm = 0.5, {LITTLE_NOISE}",
    "LocalOnly": "client = 0",
    "MultiKrum": "num_malicious_nodes = 0",
    "Scaffold": "any_optimizer = true",
}
"""Options without which a strategy cannot be made, or does not go with a task's own optimizer."""
