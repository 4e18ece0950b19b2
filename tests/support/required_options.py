"""What a strategy needs to be told before it can run any task."""

REQUIRED = {
    "Bulyan": "num_malicious_nodes = 0",
    "DifferentialPrivacyClientSideAdaptiveClipping": "noise_multiplier = 0.01",
    "DifferentialPrivacyClientSideFixedClipping": "clipping_norm = 0.5, noise_multiplier = 0.01",
    "DifferentialPrivacyServerSideAdaptiveClipping": "noise_multiplier = 0.01",
    "DifferentialPrivacyServerSideFixedClipping": "clipping_norm = 0.5, noise_multiplier = 0.01",
    "FedAvgM": "server_momentum = 0.9",
    "FedNova": "any_optimizer = true",
    "FedProx": "proximal_mu = 0.1",
    "Krum": "num_malicious_nodes = 0",
    "LocalDP": "clipping_norm = 0.5, noise_multiplier = 0.01",
    "LocalOnly": "client = 0",
    "MultiKrum": "num_malicious_nodes = 0",
    "Scaffold": "any_optimizer = true",
}
"""Options without which a strategy cannot be made, or does not go with a task's own optimizer."""
