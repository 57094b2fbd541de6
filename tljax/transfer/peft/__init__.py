"""Parameter-efficient fine-tuning: a few leaves beside a frozen backbone."""

from tljax.transfer.injection import Injected
from tljax.transfer.peft.merging import merge
from tljax.transfer.peft.methods import METHODS, POLICIES, Method, chosen, injector

__all__ = ['METHODS', 'POLICIES', 'Injected', 'Method', 'chosen', 'injector', 'merge']
