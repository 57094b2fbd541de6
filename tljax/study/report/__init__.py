"""The report of a comparison: one page, its Markdown, its pictures, and the numbers."""

from tljax.study.report.comparison import text_summary, write
from tljax.study.report.output import plain

__all__ = ['plain', 'text_summary', 'write']
