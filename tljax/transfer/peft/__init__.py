"""Parameter-efficient fine-tuning: a few leaves beside a frozen backbone."""

from tljax.transfer.injection import Injected
from tljax.transfer.peft.merging import merge
from tljax.transfer.peft.methods import METHODS, Method, injector

__all__ = ['METHODS', 'Injected', 'Method', 'injector', 'merge']
