"""What makes a run a transfer: which leaves come from the source, and what is trained when."""

from tljax.transfer.manifest import Entry, Manifest
from tljax.transfer.policies import Phase, decide, phases
from tljax.transfer.surgery import apply, plan

__all__ = ['Entry', 'Manifest', 'Phase', 'apply', 'decide', 'phases', 'plan']
