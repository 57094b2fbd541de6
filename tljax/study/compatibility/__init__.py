"""What speaks against a source, or against the target's own data, found before any training."""

from tljax.study.compatibility.checks import check, check_target, check_together
from tljax.study.compatibility.finding import LEVELS, Finding, listed, worst

__all__ = ['LEVELS', 'Finding', 'check', 'check_target', 'check_together', 'listed', 'worst']
