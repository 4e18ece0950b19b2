"""Low-rank adapters: little to train and to send, on a network that stays as it is."""

from importlib.util import find_spec

from torch import nn

from models.core.errors import UserError


def add_lora(network: nn.Module, rank: int) -> None:
    """Freeze a transformer and add LoRA (Hu et al. 2021, arXiv:2106.09685) to its attention, in place.

    The adapters and the head, which is all that lies outside the base model, are left to be trained. Raises
    UserError where the package peft is not installed, or does not know the network.
    """
    if find_spec("peft") is None:
        raise UserError("option lora needs a package that is not here: pip install 'polyfed[lora]'")
    from peft import LoraConfig, inject_adapter_in_model

    try:
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank), network)
    except ValueError as error:
        raise UserError(f"option lora does not fit the backbone: {' '.join(str(error).split())}") from error
    base = f"{network.base_model_prefix}."
    for name, parameter in network.named_parameters():
        if not name.startswith(base):
            parameter.requires_grad_(True)


def plain_name(name: str) -> str:
    """Return the name that a state's entry has without an adapter around its layer."""
    return name.replace(".base_layer.", ".")
